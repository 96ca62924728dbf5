package problem

import (
	"errors"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Join makes one error of several, nil ones left out. It has the class of
// the first that the caller can mend, not of one that may pass by itself.
func Join(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	passing := func(err error) bool { return errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout) }
	class := fault.ClassOf(errs[0])
	if i := slices.IndexFunc(errs, func(err error) bool { return !passing(err) }); i >= 0 {
		class = fault.ClassOf(errs[i])
	}
	var texts, hints []string
	for _, err := range errs {
		texts = append(texts, err.Error())
		if hint := fault.HintOf(err); hint != "" && !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	e := fault.New(class, "%s", strings.Join(texts, "; ")).WithHint("%s", strings.Join(hints, "; "))
	return WithDetails(e, texts)
}
