package guest

import (
	"reflect"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/guestapi"
)

// A simulated guest must speak as the real one does.
func TestWordsAreTheGuestAPIs(t *testing.T) {
	pairs := []struct{ own, real any }{
		{bootstrap{}, guestapi.Bootstrap{}},
		{fetchRequest{}, guestapi.FetchRequest{}},
		{payload{}, guestapi.Payload{}},
		{job{}, guestapi.Job{}},
		{report{}, guestapi.Report{}},
		{reportReply{}, guestapi.ReportReply{}},
		{logReply{}, guestapi.LogReply{}},
		{jobResult{}, guestapi.JobResult{}},
	}
	for _, p := range pairs {
		own, real := reflect.TypeOf(p.own), fields(reflect.TypeOf(p.real))
		for name, typ := range fields(own) {
			if got, ok := real[name]; !ok || (got.Kind() != typ.Kind()) {
				t.Errorf("%s.%s is %v here and %v in the guest API", own.Name(), name, typ, got)
			}
		}
	}
	for own, real := range map[string]string{
		fetchPath: guestapi.FetchPath, repoPath: guestapi.RepoPath, reportPath: guestapi.ReportPath,
		logPath: guestapi.LogPath, uploadPath: guestapi.UploadPath,
		heartbeat: guestapi.ReportHeartbeat, stage: guestapi.ReportStage, finished: guestapi.ReportFinished,
	} {
		if own != real {
			t.Errorf("%q here is %q in the guest API", own, real)
		}
	}
}

func fields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[name] = t.Field(i).Type
	}
	return out
}
