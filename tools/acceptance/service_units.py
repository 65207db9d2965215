"""The files in dist/, tried: systemd's unit and its sandbox, launchd's plist, logrotate's rules.

    python service_units.py BINARY [MODEL]

The plist is parsed, and its arguments and those of the unit are given to BINARY with a model that is nowhere, which it must get as
far as. With `systemd-analyze`, the unit is verified. As root on Linux, MODEL is served the way that the unit says, by a user
without rights in the unit's sandbox (made with `unshare` and `setpriv`, since systemd does not run everywhere), its log is rotated with
`logrotate`, and it is reloaded and stopped. BINARY should be an installed one, `PREFIX/bin/sglang-mlx`. Needs Python's standard library.
"""

import json
import os
import plistlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from local_server import ask, ask_json, check, free_port, until

DIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../dist")
# What ProtectSystem=strict, ProtectHome=read-only and PrivateTmp=yes come to, with the unit's folders writable.
SANDBOX = """
mount --make-rprivate / &&
for folder in $WRITABLE; do mount --bind $folder $folder; done &&
mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /var/tmp &&
mount -o remount,bind,ro / &&
cd $STATE && exec setpriv --reuid $USER_ID --regid $USER_ID --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""


def read(name):
    with open(os.path.join(DIST, name)) as file:
        return file.read()


def unit_settings():
    """Lists of values by key, without sections: no key is in two of them."""
    settings = {}
    for line in read("sglang-mlx.service").splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            settings.setdefault(key, []).append(value)
    return settings


def unit_arguments(settings):
    environment = dict(line.split("=", 1) for line in read("sglang-mlx.env").splitlines() if line and not line.startswith("#"))
    _, *words = settings["ExecStart"][0].split()
    return [part for word in words for part in (environment[word[1:]].split() if word.startswith("$") else [word])]


def with_values(arguments, **values):
    """The arguments with other values for some flags."""
    arguments = list(arguments)
    for flag, value in values.items():
        name = "--" + flag.replace("_", "-")
        if name in arguments:
            arguments[arguments.index(name) + 1] = str(value)
        else:
            arguments += [name, str(value)]
    return arguments


def check_arguments(binary, arguments, what):
    tried = with_values(arguments, model_path="/nowhere/at-all", port=free_port())
    result = subprocess.run([binary, *tried], capture_output=True, text=True, timeout=60)
    words = result.stderr.strip().splitlines()
    check(result.returncode == 1 and "/nowhere/at-all" in words[-1], f"{what}: {' '.join(arguments)[:60]}... {words[-1:]}")


def check_plist(binary):
    plist = plistlib.loads(read("org.sglang.mlx.plist").encode())
    program, *arguments = plist["ProgramArguments"]
    types = {"Label": str, "RunAtLoad": bool, "KeepAlive": dict, "ThrottleInterval": int, "ExitTimeOut": int,
             "ProcessType": str, "StandardOutPath": str, "StandardErrorPath": str, "ProgramArguments": list}
    check(all(type(value) is types.get(key) for key, value in plist.items()), "the plist has launchd's keys and types")
    check(plist["Label"] == "org.sglang.mlx" and plist["ProcessType"] in ("Background", "Standard", "Adaptive", "Interactive"), "named")
    check(os.path.isabs(program) and all(type(word) is str for word in arguments), "a command")
    check_arguments(binary, arguments, "the plist's arguments are taken")


def verify(binary):
    if not shutil.which("systemd-analyze"):
        return print("--    no systemd-analyze: the unit is not verified")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/sglang-mlx.service"
        with open(path, "w") as file:
            file.write(read("sglang-mlx.service").replace("/usr/local/bin/sglang-mlx", binary))
        result = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
        check(result.returncode == 0 and not result.stderr, f"systemd takes the unit {result.stderr}")


class Service:
    """The unit's command in the unit's sandbox."""

    def __init__(self, binary, model, settings, root):
        self.port, self.log = free_port(), f"{root}/stderr"
        self.state, self.logs, user = f"{root}/state", f"{root}/logs", pwd.getpwnam("nobody")
        for folder in (self.state, self.logs):
            os.mkdir(folder)
            os.chown(folder, user.pw_uid, user.pw_gid)
        os.chmod(root, 0o755)
        arguments = with_values(unit_arguments(settings), model_path=model, host="127.0.0.1", port=self.port, drain_timeout=5,
                                crash_dump_folder=f"{self.state}/crashes", log_requests_target=self.logs)
        environment = {"PATH": os.environ["PATH"], "WRITABLE": f"{self.state} {self.logs}", "STATE": self.state, "USER_ID": str(user.pw_uid)}
        environment |= dict(line.split("=", 1) for line in settings["Environment"])
        environment |= {"HOSTNAME": "host", "HF_HOME": f"{self.state}/huggingface"}
        command = ["unshare", "--mount", "sh", "-c", SANDBOX, "sh", binary, *arguments, "--log-requests"]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=open(self.log, "w"))

    def url(self, path):
        assert self.process.poll() is None, open(self.log).read()
        return f"http://127.0.0.1:{self.port}{path}"

    def generate(self, rid):
        params = {"max_new_tokens": 4, "temperature": 0}
        return ask_json(self.url("/generate"), {"text": "One, two,", "rid": rid, "sampling_params": params})


def rotate(service, root):
    """logrotate with the rules of dist/, for these folders and this process."""
    rules = read("sglang-mlx.logrotate").replace("/var/log/sglang-mlx", service.logs)
    rules = rules.replace("su sglang sglang", f"su nobody {pwd_group()}")
    rules = rules.replace("systemctl is-active --quiet sglang-mlx.service", "true")
    rules = rules.replace("systemctl reload sglang-mlx.service", f"kill -HUP {service.process.pid}")
    with open(f"{root}/rules", "w") as file:
        file.write(rules)
    os.chmod(f"{root}/rules", 0o644)
    subprocess.run(["logrotate", "--force", "--state", f"{root}/rotated", f"{root}/rules"], check=True)


def pwd_group():
    import grp
    return grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name


def serve(binary, model, settings):
    with tempfile.TemporaryDirectory(dir="/var/lib") as root:
        service = Service(binary, model, settings, root)
        try:
            until(lambda: ask(service.url("/health"))[0] == 200, "the service is up", 300)
            status = dict(line.split(":\t", 1) for line in open(f"/proc/{service.process.pid}/status") if ":\t" in line)
            check(status["NoNewPrivs"].strip() == "1" and int(status["CapEff"], 16) == 0, "it has no rights, and gets none")
            check(len(service.generate("before")["output_ids"]) == 4, "it answers in the sandbox")
            log = f"{service.logs}/host_0.log"
            until(lambda: '"before"' in open(log).read(), "its log is written")
            if shutil.which("logrotate"):
                rotate(service, root)
                until(lambda: "log files are opened again" in open(service.log).read(), "it was told of the rotation")
                service.generate("after")
                until(lambda: '"after"' in open(log).read() and '"before"' not in open(log).read(), "a new log")
                check('"before"' in open(f"{log}.1").read(), "logrotate's rules: the old log is kept, a new one is written")
            service.process.send_signal(signal.SIGTERM)
            check(service.process.wait(30) == 0, "it stops with 0")
        finally:
            service.process.kill()


def main():
    binary, *model = sys.argv[1:]
    binary, settings = os.path.abspath(binary), unit_settings()
    check_plist(binary)
    check_arguments(binary, unit_arguments(settings), "the unit's arguments are taken")
    check(settings["ProtectSystem"] == ["strict"] and settings["ProtectHome"] == ["read-only"], "the sandbox is the one that is tried here")
    verify(binary)
    if model and sys.platform == "linux" and os.geteuid() == 0:
        serve(binary, os.path.abspath(model[0]), settings)


if __name__ == "__main__":
    main()
