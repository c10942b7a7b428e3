"""No connection leaves the machine while tests run. conftest.py imports this, and every Python that tests start does too
(it lies on their PYTHONPATH). Attempts fail, and are written to the file that ARGAN_TEST_CONNECTIONS names.
"""

import ipaddress
import os
import pathlib
import socket
import sys


def _local(host):
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback or host in ("0.0.0.0", "::")
    except ValueError:
        return False


def _refuse(host):
    if log := os.environ.get("ARGAN_TEST_CONNECTIONS"):
        with pathlib.Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{' '.join(sys.argv[:3])} -> {host}\n")
    raise OSError(f"blocked by the tests: a connection to {host}")


def _guarded(connect):
    def connect_locally(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(address[0]):
            _refuse(address[0])
        return connect(self, address, *rest)

    return connect_locally


def _getaddrinfo(host, *rest, **named):
    if not _local(host):
        _refuse(host)
    return _resolve(host, *rest, **named)


if not hasattr(socket, "argan_guard"):
    socket.argan_guard = True
    _resolve, socket.getaddrinfo = socket.getaddrinfo, _getaddrinfo
    socket.socket.connect = _guarded(socket.socket.connect)
    socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
