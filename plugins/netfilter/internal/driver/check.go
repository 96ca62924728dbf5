package driver

import (
	"context"
	"fmt"
	"os"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/links"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// applyFix is the remedy for everything that ApplyHost puts right.
const applyFix = "agentlab network apply"

// CheckHost implements network.Driver.
func (d *Driver) CheckHost(ctx context.Context, wish network.Host) ([]plugin.Finding, error) {
	host, err := policy.ParseHost(wish)
	if err != nil {
		return nil, err
	}
	release, err := d.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := d.nft.Version(ctx); err != nil {
		return []plugin.Finding{{
			ID: "nft", Level: plugin.LevelMissing, Message: "nft does not run: " + err.Error(),
			Fix: "apt-get install nftables",
		}}, nil
	}
	h, err := links.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	v, err := d.look(ctx, h)
	if err != nil {
		return []plugin.Finding{{
			ID: "nftables", Level: plugin.LevelMissing, Message: "nftables cannot be read: " + err.Error(),
			Fix: fault.HintOf(err),
		}}, nil
	}
	return d.findings(ctx, h, v, host), nil
}

func (d *Driver) findings(ctx context.Context, h links.Handle, v view, host policy.Host) []plugin.Finding {
	return []plugin.Finding{
		d.checkNFT(ctx), checkTun(), d.checkBridge(h, v, host), checkSysctl("ip_forward", links.Forwarding),
		d.checkRules(v, host), d.checkWAN(v), checkBridgeMatch(v, host), checkPorts(v, host),
	}
}

// judge makes a finding: ok when problem is "".
func judge(id, good, problem string, level plugin.Level, fix string) plugin.Finding {
	if problem == "" {
		return plugin.Finding{ID: id, Level: plugin.LevelOK, Message: good}
	}
	return plugin.Finding{ID: id, Level: level, Message: problem, Fix: fix}
}

func (d *Driver) checkNFT(ctx context.Context) plugin.Finding {
	version, err := d.nft.Version(ctx)
	if err != nil {
		return judge("nft", "", "nft does not run: "+err.Error(), plugin.LevelMissing, "apt-get install nftables")
	}
	return judge("nft", "nft "+version, "", "", "")
}

func checkTun() plugin.Finding {
	problem := ""
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		problem = "taps cannot be made: " + err.Error()
	} else {
		_ = f.Close()
	}
	return judge("tun", "/dev/net/tun can be opened", problem, plugin.LevelMissing, "modprobe tun")
}

func (d *Driver) checkBridge(h links.Handle, v view, host policy.Host) plugin.Finding {
	link, ok := v.links[host.Bridge]
	bad := func(format string, args ...any) plugin.Finding {
		return judge("bridge", "", fmt.Sprintf(format, args...), plugin.LevelMissing, applyFix)
	}
	if !ok {
		return bad("there is no bridge %s", host.Bridge)
	}
	if link.Kind != "bridge" {
		f := bad("interface %s is no bridge but a %s", host.Bridge, link.Kind)
		f.Fix = "set agent_bridge to another name"
		return f
	}
	has, err := hasAddress(h, link, host)
	switch {
	case err != nil:
		return bad("addresses of %s cannot be read: %s", host.Bridge, err)
	case !has:
		return bad("bridge %s lacks %s", host.Bridge, hostPrefix(host))
	case !link.Up:
		return bad("bridge %s is down", host.Bridge)
	}
	for _, s := range links.BridgeSettings(host.Bridge) {
		if f := checkSysctl("bridge", s); f.Level != plugin.LevelOK {
			f.Level = plugin.LevelWarning
			return f
		}
	}
	return judge("bridge", "bridge "+host.Bridge+" has "+hostPrefix(host).String(), "", "", "")
}

func checkSysctl(id string, s links.Setting) plugin.Finding {
	value, err := links.Get(s.Key)
	problem := ""
	if err != nil {
		problem = err.Error()
	} else if value != s.Value {
		problem = fmt.Sprintf("net/%s is %s, not %s", s.Key, value, s.Value)
	}
	return judge(id, "net/"+s.Key+" is "+s.Value, problem, plugin.LevelMissing, "sysctl -w net/"+s.Key+"="+s.Value)
}

func (d *Driver) checkRules(v view, host policy.Host) plugin.Finding {
	problem := ""
	found := ruleset.Differences(v.tables, ruleset.Build(host, v.ways, v.policies), v.policies)
	if len(found) > 0 {
		problem = fmt.Sprintf("%d differences from the rules that should be in force: %s", len(found), found[0].Text)
	}
	return judge("rules", fmt.Sprintf("the rules of %d sandboxes are in force", len(v.policies)), problem, plugin.LevelMissing, applyFix)
}

func (d *Driver) checkWAN(v view) plugin.Finding {
	name, problem := d.cfg.WANInterface, ""
	if name == "" {
		return judge("wan_interface", "sandboxes go out by every other interface", "", "", "")
	}
	if _, ok := v.links[name]; !ok {
		problem = "wan_interface " + name + " does not exist"
	}
	return judge("wan_interface", "sandboxes go out by "+name, problem, plugin.LevelMissing, "set wan_interface to the interface of the default route")
}

func checkBridgeMatch(v view, host policy.Host) plugin.Finding {
	if v.ways.NamesBridge {
		return judge("bridge_match", "the kernel tells bridges apart", "", "", "")
	}
	if other := otherBridge(v, host.Bridge); other != "" {
		return judge("bridge_match", "", "this kernel cannot tell the ports of "+host.Bridge+" from those of "+other,
			plugin.LevelMissing, "use a kernel with CONFIG_NFT_BRIDGE_META")
	}
	return judge("bridge_match", "", "this kernel cannot tell bridges apart: any other bridge here would be shut as well",
		plugin.LevelWarning, "use a kernel with CONFIG_NFT_BRIDGE_META before you add another bridge")
}

// checkPorts names ports of the bridge that belong to no sandbox. They are shut.
func checkPorts(v view, host policy.Host) plugin.Finding {
	bridge, problem := v.links[host.Bridge], ""
	for name, l := range v.links {
		if bridge.Index == 0 || l.Master != bridge.Index {
			continue
		}
		known := false
		for _, p := range v.policies {
			known = known || p.Interface == name
		}
		if !known && (problem == "" || name < problem) {
			problem = name
		}
	}
	if problem != "" {
		problem += " is a port of " + host.Bridge + " and of no sandbox: it is shut"
	}
	return judge("ports", "every port belongs to a sandbox", problem, plugin.LevelWarning,
		"take what is no sandbox off the agent bridge")
}
