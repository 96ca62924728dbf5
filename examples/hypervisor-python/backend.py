"""A hypervisor whose VMs are JSON files, one for each, in a directory.

What is simulated here is what yours would do for real; what is around it is not:
the owner mark comes first and is compared before each change, calls converge
when they are repeated, and nothing is kept in memory.
"""
import contextlib
import fcntl
import json
import os
import time

from agentlab.hypervisor.v1 import hypervisor_pb2 as pb
from agentlab.plugin.v1 import schema_pb2 as schema
from agentlab_plugin import Fault, diagnostic

FIRST, LAST = 1000, 1999
TEMPLATE = pb.Template(vmid=9000, name="blank", version="1", ssh_user="agent")


class Hypervisor:
    NAME = "pydir"
    VERSION = "0.1.0"
    DESCRIPTION = "simulated VMs as files, an example in Python"
    SERVICE = "agentlab.hypervisor.v1.HypervisorService"
    CAPABILITIES = []  # what is not named here is not in CALLS, and so UNIMPLEMENTED
    CALLS = {
        "CheckHost": pb.CheckHostRequest, "ListTemplates": pb.ListTemplatesRequest, "ListVMs": pb.ListVMsRequest,
        "GetVM": pb.VMRef, "GetStats": pb.GetStatsRequest, "CreateVM": pb.CreateVMRequest,
        "SetPower": pb.SetPowerRequest, "DestroyVM": pb.DestroyVMRequest,
    }
    STREAMS = ["ListVMs", "CreateVM"]
    SCHEMA = schema.Block(attributes=[schema.Attribute(
        name="directory", type=b'"string"', default_json=b'""',
        description="Where the VMs are kept. Empty: the plugin's own state directory.")])

    @staticmethod
    def problems(config):
        directory = config.get("directory", "")
        if not isinstance(directory, str) or directory and not os.path.isabs(directory):
            return [diagnostic("directory must be an absolute path", "directory")]
        return []

    def __init__(self, config, state_dir, log):
        self.dir = config.get("directory") or state_dir
        self.log = log
        try:
            os.makedirs(self.dir, mode=0o700, exist_ok=True)
        except OSError as err:
            raise Fault("UNAVAILABLE", f"make {self.dir}: {err.strerror}") from err

    def trouble(self):
        return "" if os.access(self.dir, os.W_OK) else f"{self.dir} cannot be written"

    # Files.

    def path(self, vmid):
        return os.path.join(self.dir, f"{vmid}.json")

    @contextlib.contextmanager
    def locked(self, vmid):
        """One at a time for a VM, in this process or another; a kill frees it."""
        with open(os.path.join(self.dir, f".{vmid}.lock"), "w", encoding="utf-8") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield

    def load(self, vmid):
        try:
            with open(self.path(vmid), encoding="utf-8") as f:
                return json.load(f)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as err:  # not gone: not known
            raise Fault("UNAVAILABLE", f"read vm {vmid}: {err}") from err

    def store(self, vmid, vm):
        """The file is whole, the old one or the new one, whenever we are killed."""
        new = self.path(vmid) + f".{time.monotonic_ns()}.new"
        with open(os.open(new, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as f:
            json.dump(vm, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, self.path(vmid))

    def owned(self, ref):
        """The VM, if it is there and carries the mark."""
        vm = self.load(ref.vmid)
        if vm is None:
            raise Fault("NOT_FOUND", f"vm {ref.vmid} does not exist", resource=f"vm {ref.vmid}")
        if not ref.expect_owner or vm["owner"] != ref.expect_owner:
            raise Fault("PRECONDITION", f"vm {ref.vmid} does not carry this owner mark", resource=f"vm {ref.vmid}")
        return vm

    # Calls of the contract.

    def CheckHost(self, _request, _context):
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        disk = os.statvfs(self.dir)
        return pb.CheckHostResponse(
            findings=[schema.Finding(id="simulated", level=schema.Finding.LEVEL_OK, message="VMs are files in " + self.dir)],
            cores=os.cpu_count(), memory_bytes=pages * size, memory_free_bytes=os.sysconf("SC_AVPHYS_PAGES") * size,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            vmid_first=FIRST, vmid_last=LAST, interface_pattern="tap%di0", creates_interface=False)

    def ListTemplates(self, _request, _context):
        return pb.ListTemplatesResponse(templates=[TEMPLATE])

    def ListVMs(self, request, _context):
        for name in sorted(os.listdir(self.dir)):
            vmid, ending = os.path.splitext(name)
            vm = self.load(int(vmid)) if ending == ".json" and vmid.isdigit() else None
            if vm and (request.include_foreign or vm["owner"].startswith(request.owner_prefix)):
                yield present(int(vmid), vm)

    def GetVM(self, ref, _context):
        vm = self.load(ref.vmid)
        if vm is None:
            raise Fault("NOT_FOUND", f"vm {ref.vmid} does not exist", resource=f"vm {ref.vmid}")
        return present(ref.vmid, vm)

    def GetStats(self, request, _context):
        out = pb.GetStatsResponse()
        for vmid in request.vmids:
            vm = self.load(vmid)
            if vm and vm["power"] == pb.POWER_ON:
                out.stats[vmid].CopyFrom(pb.Stats(cpu_fraction=0.01, memory_used_bytes=vm["memory_bytes"] // 4))
                out.stats[vmid].window.FromSeconds(1)
        return out

    def CreateVM(self, request, _context):
        ref = request.ref
        if not ref.expect_owner or not FIRST <= ref.vmid <= LAST or not request.cores or not request.memory_bytes:
            raise Fault("INVALID", "a VM needs an owner mark, a VMID in the range, cores and memory")
        if request.template not in (TEMPLATE.name, str(TEMPLATE.vmid)):
            raise Fault("NOT_FOUND", f"template {request.template} does not exist", hint="there is: " + TEMPLATE.name)
        # First the mark, so that what a kill leaves can be told to be ours. No
        # lock is held where the caller may be waited for.
        with self.locked(ref.vmid):
            vm = self.load(ref.vmid)
            if vm and vm["owner"] != ref.expect_owner:
                raise Fault("EXISTS", f"vmid {ref.vmid} belongs to somebody else", resource=f"vm {ref.vmid}")
            if vm is None:
                vm = {"owner": ref.expect_owner, "half": True, "power": pb.POWER_OFF, "name": request.name,
                      "cores": 0, "memory_bytes": 0, "mac": "", "started": 0}
                self.store(ref.vmid, vm)
        if vm["half"]:
            try:
                yield pb.CreateVMUpdate(progress=pb.Progress(phase="clone disk", fraction=0.5))
            except GeneratorExit:  # the caller has gone
                self.discard(ref)
                raise
            with self.locked(ref.vmid):
                if self.load(ref.vmid) is None:  # by another call that was given up, or destroyed
                    raise Fault("CONFLICT", f"vm {ref.vmid} was taken back meanwhile", resource=f"vm {ref.vmid}")
                vm = self.owned(ref)
                if vm["half"]:
                    vm.update(half=False, name=request.name, cores=request.cores, memory_bytes=request.memory_bytes,
                              mac=request.nic.mac, seed=request.seed.user_data.decode(errors="replace"))
                    self.store(ref.vmid, vm)
                    self.log.info("vm created", vmid=ref.vmid)
        yield pb.CreateVMUpdate(vm=present(ref.vmid, vm))

    def discard(self, ref):
        """Nothing stays behind of a create that failed."""
        with self.locked(ref.vmid):
            vm = self.load(ref.vmid)
            if vm and vm["half"] and vm["owner"] == ref.expect_owner:
                os.unlink(self.path(ref.vmid))

    def SetPower(self, request, _context):
        vmid, target = request.ref.vmid, request.power
        if target == pb.POWER_UNSPECIFIED:
            raise Fault("INVALID", "there is no such power state")
        if target == pb.POWER_HIBERNATED:
            raise Fault("UNSUPPORTED", "these VMs cannot be hibernated")
        with self.locked(vmid):
            vm = self.owned(request.ref)
            if vm["half"]:
                raise Fault("PRECONDITION", f"vm {vmid} was never finished")
            if target == pb.POWER_PAUSED and vm["power"] == pb.POWER_OFF:
                raise Fault("PRECONDITION", f"vm {vmid} is off and cannot be paused")
            if target == pb.POWER_SHUTDOWN:  # these guests obey at once
                target = pb.POWER_OFF
            if target != vm["power"]:
                if target == pb.POWER_OFF:
                    vm["started"] = 0
                elif vm["power"] == pb.POWER_OFF:
                    vm["started"] = time.time_ns()
                vm["power"] = target
                self.store(vmid, vm)
                self.log.info("vm power changed", vmid=vmid, power=pb.Power.Name(target))
            return present(vmid, vm)

    def DestroyVM(self, request, _context):
        vmid = request.ref.vmid
        with self.locked(vmid):
            if self.load(vmid) is None:
                return pb.DestroyVMResponse()  # gone is success
            self.owned(request.ref)
            os.unlink(self.path(vmid))
            self.log.info("vm destroyed", vmid=vmid)
        return pb.DestroyVMResponse()


def present(vmid, vm):
    out = pb.VM(
        ref=pb.VMRef(vmid=vmid, expect_owner=vm["owner"]), name=vm["name"], power=vm["power"], lock="create" if vm["half"] else "",
        nic=pb.Nic(mac=vm["mac"]), cores=vm["cores"], memory_bytes=vm["memory_bytes"], host_interface=f"tap{vmid}i0")
    if vm["started"]:
        out.started.FromNanoseconds(vm["started"])
    return out
