"""What every plugin of AgentLab serves, whatever it does: the handshake of
go-plugin, mutual TLS, the base service, errors with a class, the lifeline.

Needs Debian's python3-grpcio, python3-protobuf and python3-cryptography.
"""
import base64
import concurrent.futures
import datetime
import json
import os
import sys
import tempfile
import threading
import time

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import any_pb2

from agentlab.plugin.v1 import plugin_pb2 as pb
from agentlab.plugin.v1 import schema_pb2 as schema

PREFIX = "agentlab-plugin-"
MAX_MESSAGE = 64 << 20
BASE = "agentlab.plugin.v1.PluginService"
LEVELS = ["trace", "debug", "info", "warn", "error"]

# Each class of errors, and the gRPC code for callers that look no further.
CODES = {
    "INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "CONFLICT": grpc.StatusCode.ABORTED,
    "LOCKED": grpc.StatusCode.FAILED_PRECONDITION,
    "DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "PRECONDITION": grpc.StatusCode.FAILED_PRECONDITION,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "TIMEOUT": grpc.StatusCode.DEADLINE_EXCEEDED,
    "UNSUPPORTED": grpc.StatusCode.UNIMPLEMENTED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}


class Fault(Exception):
    """A failure with a class, which tells the host what it means."""

    def __init__(self, kind, message, hint="", resource=""):
        super().__init__(message)
        self.kind, self.message, self.hint, self.resource = kind, message, hint, resource


class Log:
    """Lines of JSON on standard error, as the host reads them."""

    level = "info"

    def write(self, level, message, **fields):
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        line = {"@level": level, "@message": message, "@timestamp": now, **fields}
        print(json.dumps(line), file=sys.stderr, flush=True)

    def info(self, message, **fields):
        self.write("info", message, **fields)

    def error(self, message, **fields):
        self.write("error", message, **fields)


class Gate:
    """Counts the calls of the kind, and refuses new ones once it drains."""

    def __init__(self):
        self.changed = threading.Condition()
        self.running = 0
        self.draining = False

    def __enter__(self):
        with self.changed:
            if self.draining:
                raise Fault("UNAVAILABLE", "plugin is draining")
            self.running += 1

    def __exit__(self, *_):
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def drain(self, seconds):
        with self.changed:
            self.draining = True
            self.changed.wait_for(lambda: self.running == 0, timeout=seconds)
            return self.running


class Plugin:
    """The base service."""

    def __init__(self, driver_class):
        self.driver_class = driver_class
        self.driver = None
        self.request = None
        self.answer = None
        self.lock = threading.Lock()
        self.gate = Gate()
        self.log = Log()

    def get_info(self, _request, _context):
        c = self.driver_class
        return pb.GetInfoResponse(
            name=c.NAME, version=c.VERSION, sdk="python/none", description=c.DESCRIPTION, services=[c.SERVICE],
            confinement=pb.Confinement(network=False))

    def get_schema(self, _request, _context):
        return pb.GetSchemaResponse(schema=schema.Schema(version=1, block=self.driver_class.SCHEMA))

    def validate_config(self, request, _context):
        return pb.ValidateConfigResponse(diagnostics=self.problems(request.config_json))

    def problems(self, raw):
        """A problem of the configuration is a diagnostic, not an error."""
        try:
            config = json.loads(raw)
        except ValueError:
            return [diagnostic("the configuration is not JSON")]
        if not isinstance(config, dict):
            return [diagnostic("the configuration is not an object")]
        return self.driver_class.problems(config)

    def configure(self, request, _context):
        with self.lock:
            if self.request is not None:
                if request == self.request:
                    return self.answer
                raise Fault("PRECONDITION", "plugin is already configured differently")
            if request.service != self.driver_class.SERVICE:
                raise Fault("UNSUPPORTED", f"plugin does not serve {request.service}")
            wrong = self.problems(request.config_json)
            if wrong:
                return pb.ConfigureResponse(diagnostics=wrong)
            self.driver = self.driver_class(json.loads(request.config_json), request.state_dir, self.log)
            self.request = request
            self.answer = pb.ConfigureResponse(capabilities=self.driver_class.CAPABILITIES)
            return self.answer

    def health(self, _request, _context):
        if self.driver is None:
            return pb.HealthResponse(state=pb.HealthResponse.STATE_UNAVAILABLE, message="not configured")
        message = self.driver.trouble()
        if message:
            return pb.HealthResponse(state=pb.HealthResponse.STATE_DEGRADED, message=message)
        return pb.HealthResponse(state=pb.HealthResponse.STATE_READY)

    def set_log_level(self, request, _context):
        if request.level not in LEVELS:
            raise Fault("INVALID", f"there is no log level {request.level!r}", hint="use " + ", ".join(LEVELS))
        self.log.level = request.level
        return pb.SetLogLevelResponse()

    def drain(self, request, _context):
        left = self.gate.drain(request.timeout.seconds + request.timeout.nanos / 1e9)
        return pb.DrainResponse(unfinished=left)

    def handlers(self):
        """All services: base, kind, health, and go-plugin's controller."""
        base = {
            "GetInfo": (self.get_info, pb.GetInfoRequest), "GetSchema": (self.get_schema, pb.GetSchemaRequest),
            "ValidateConfig": (self.validate_config, pb.ValidateConfigRequest),
            "Configure": (self.configure, pb.ConfigureRequest), "Health": (self.health, pb.HealthRequest),
            "SetLogLevel": (self.set_log_level, pb.SetLogLevelRequest), "Drain": (self.drain, pb.DrainRequest),
        }
        kind = {name: (self.of_kind(name), request) for name, request in self.driver_class.CALLS.items()}
        streams = self.driver_class.STREAMS
        return [
            grpc.method_handlers_generic_handler(BASE, {n: self.handler(*h) for n, h in base.items()}),
            grpc.method_handlers_generic_handler(
                self.driver_class.SERVICE, {n: self.handler(*h, stream=n in streams) for n, h in kind.items()}),
            # The answer {status: SERVING}; no code needs to be generated for that.
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
                "Check": grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\x08\x01")}),
            grpc.method_handlers_generic_handler("plugin.GRPCController", {
                "Shutdown": grpc.unary_unary_rpc_method_handler(shutdown)}),
        ]

    def of_kind(self, name):
        """A call of the kind, which works after Configure and before Drain."""
        def call(request, context):
            if self.driver is None:
                raise Fault("PRECONDITION", "plugin is not configured")
            return getattr(self.driver, name)(request, context)
        call.guarded = True
        return call

    def handler(self, function, request_class, stream=False):
        def guard():
            return self.gate if getattr(function, "guarded", False) else threading.Lock()

        def unary(request, context):
            try:
                with guard():
                    return function(request, context)
            except Exception as err:  # the process goes on, whatever a call does
                self.fail(context, err)

        def streaming(request, context):
            try:
                with guard():
                    yield from function(request, context)
            except Exception as err:
                self.fail(context, err)

        make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
        return make(streaming if stream else unary, request_deserializer=request_class.FromString,
                    response_serializer=lambda m: m.SerializeToString())

    def fail(self, context, err):
        """Ends a call with an error that carries PluginError."""
        if not isinstance(err, Fault):
            self.log.error("call failed", err=repr(err))
            err = Fault("INTERNAL", f"{type(err).__name__}: {err}", hint="this is a defect of the plugin; its log has more")
        detail = any_pb2.Any()
        detail.Pack(pb.PluginError(
            **{"class": getattr(pb, "CLASS_" + err.kind)}, message=err.message, hint=err.hint, resource=err.resource))
        code = CODES[err.kind]
        context.set_trailing_metadata([("grpc-status-details-bin", rpc_status(code.value[0], err.message, detail))])
        context.abort(code, err.message)


def rpc_status(code, message, detail):
    """google.rpc.Status, {int32 code = 1; string message = 2; repeated Any details = 3}."""
    def field(number, data):
        return bytes([number << 3 | 2]) + varint(len(data)) + data
    return bytes([1 << 3]) + varint(code) + field(2, message.encode()) + field(3, detail.SerializeToString())


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def diagnostic(summary, *attributes):
    path = schema.AttributePath(steps=[schema.AttributePath.Step(attribute=a) for a in attributes])
    return schema.Diagnostic(severity=schema.Diagnostic.SEVERITY_ERROR, summary=summary, path=path)


def shutdown(_request, _context):
    threading.Timer(0.05, os._exit, [0]).start()  # the answer goes first
    return b""


def certificate():
    """A key and a certificate for this process alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.utcnow()
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, cert.public_bytes(pem), cert.public_bytes(serialization.Encoding.DER)


def lifeline():
    """Ends the process when the host is gone: its end of our input closes."""
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(0)


def serve(driver_class):
    """The whole main of a plugin."""
    if len(sys.argv) > 1 and sys.argv[1] == "--version":
        print(PREFIX + driver_class.NAME, driver_class.VERSION)
        return
    if os.environ.get("AGENTLAB_PLUGIN") != "agentlab":
        sys.exit(f"{PREFIX}{driver_class.NAME} {driver_class.VERSION} is a plugin of AgentLab: {driver_class.DESCRIPTION}")
    plugin = Plugin(driver_class)
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=64), handlers=plugin.handlers(),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)])
    key, cert, der = certificate()
    host = os.environ["PLUGIN_CLIENT_CERT"].encode()
    credentials = grpc.ssl_server_credentials([(key, cert)], root_certificates=host, require_client_auth=True)
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.mkdtemp()
    socket = os.path.join(folder, "plugin")
    server.add_secure_port("unix:" + socket, credentials)
    server.start()
    threading.Thread(target=lifeline, daemon=True).start()
    print(f"1|1|unix|{socket}|grpc|{base64.b64encode(der).decode().rstrip('=')}", flush=True)
    while True:
        time.sleep(3600)
