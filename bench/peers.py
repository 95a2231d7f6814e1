"""The peers as they are set up for a fair comparison: nothing logged, nothing looked up, files from one folder."""

from __future__ import annotations

from pathlib import Path

from bench.lab import SERVER, Server, Wire, package

PACKAGES = {"dnsmasq": "dnsmasq-base", "tftpd-hpa": "tftpd-hpa", "nginx": "nginx-light"}


def versions(*names: str) -> dict[str, str]:
    return {name: package(PACKAGES.get(name, name)) for name in names}


_DNSMASQ = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--log-facility=-")


def dnsmasq_tftp(wire: Wire, root: Path, port: int = 69) -> Server:
    argv = [*_DNSMASQ, "--port=0", "--enable-tftp", f"--tftp-root={root.absolute()}", "--quiet-tftp"]
    argv += ["--tftp-max=10000", "--pid-file=", "--interface=eth0", "--bind-interfaces"]
    assert port == 69, "dnsmasq's TFTP has no other port"
    return wire.serve(argv, wire.udp_bound(69), "dnsmasq")


def tftpd_hpa(wire: Wire, root: Path, port: int = 69) -> Server:
    argv = ["/usr/sbin/in.tftpd", "--foreground", "--secure", "--address", f"{SERVER}:{port}", str(root.absolute())]
    return wire.serve(argv, wire.udp_bound(port), "tftpd-hpa")


def dnsmasq_proxy(wire: Wire, root: Path) -> Server:
    """proxyDHCP with a loader for BIOS and UEFI."""
    argv = [*_DNSMASQ, "--port=0", "--quiet-dhcp", "--dhcp-range=10.77.0.0,proxy,255.255.0.0", "--pid-file="]
    argv += ["--dhcp-match=set:bios,option:client-arch,0", "--dhcp-boot=tag:bios,undionly.kpxe"]
    argv += ["--dhcp-boot=tag:!bios,snponly.efi", "--pxe-service=x86PC,boot,undionly"]
    argv += ["--enable-tftp", f"--tftp-root={root.absolute()}", "--quiet-tftp", "--tftp-max=10000"]
    return wire.serve(argv, wire.udp_bound(67), "dnsmasq")


def dnsmasq_dns(wire: Wire, hosts: Path) -> Server:
    argv = [*_DNSMASQ, "--no-resolv", "--no-hosts", f"--addn-hosts={hosts.absolute()}", "--pid-file="]
    argv += ["--interface=eth0", "--bind-interfaces"]
    return wire.serve(argv, wire.udp_bound(53), "dnsmasq")


def nginx(wire: Wire, root: Path, port: int = 80, extra: str = "") -> Server:
    """One worker, sendfile, no log: as a careful administrator would have it on one CPU."""
    conf = wire.folder / f"nginx-{port}.conf"
    conf.write_text(
        f"""daemon off; worker_processes 1; pid {wire.folder}/nginx-{port}.pid; error_log stderr error; user root;
events {{ worker_connections 8192; multi_accept on; }}
worker_rlimit_nofile 65536;
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 75; keepalive_requests 1000000;
  default_type application/octet-stream; open_file_cache max=1000 inactive=60s;
  client_body_temp_path {wire.folder}; proxy_temp_path {wire.folder}; fastcgi_temp_path {wire.folder};
  uwsgi_temp_path {wire.folder}; scgi_temp_path {wire.folder};
  server {{ listen {SERVER}:{port} backlog=4096; root {root.absolute()}; {extra} }}
}}
"""
    )
    # a file beside the ones served, or the root itself, answers: 200, 403 and 404 all mean that it listens
    ready = f"import socket; socket.create_connection(({SERVER!r}, {port}), 2)"
    return wire.serve(["nginx", "-c", str(conf), "-e", "stderr"], lambda: wire.probe(ready), "nginx")
