#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
"""Pools against QEMU's own drivers: the same tgtd, or the same one-OSD Ceph cluster, on loopback, one run of each in turn, ratios of each pair.

    tests/bench/bench-pools.py iscsi|ceph [--pairs N] [--vhost build/core/vhost]

Prints for each row the medians, the median of the pairs' ratios (1.2: vhost is 20 % faster), the same of the processor time that a
request costs (0.7: 30 % less), and the machine's load, without which none of these says much."""
import argparse, os, re, resource, shutil, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SRC = os.path.realpath(os.path.join(HERE, "../.."))
IQN = "iqn.2024-01.test.vhost:bench"
# name, requests, depth, bytes, write
# 4k requests are a prime number of blocks apart: qemu-img has no random order.
ROWS = [("4k read, depth 32", 30000, 32, 4096, 0), ("4k write, depth 32", 30000, 32, 4096, 1), ("4k read, depth 1", 6000, 1, 4096, 0),
        ("1M read, depth 8", 800, 8, 1 << 20, 0), ("1M write, depth 8", 500, 8, 1 << 20, 1)]
STEP = {4096: 4096 * 257}


def run(argv, env):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if out.returncode:
        sys.exit("%s: %s" % (" ".join(argv), out.stderr))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(re.search(r"completed in ([0-9.]+) seconds", out.stdout).group(1)), cpu


class Iscsi:
    needs = ("tgtd", "qemu-img")
    plugin = "storage/iscsi"

    def __init__(self, tmp):
        self.tmp = tmp

    def tgt(self, *w):
        subprocess.run([SRC + "/tests/servers/tgt", w[0], self.tmp + "/tgt", *w[1:]], check=True, stdout=subprocess.DEVNULL)

    def start(self, vhost, env):
        self.tgt("start")
        self.tgt("target", "1", IQN)
        self.tgt("lun", "1", "1", "1G")
        portal = "127.0.0.1:" + open(self.tmp + "/tgt/port").read().strip()
        subprocess.run([vhost, "pool", "define", "p", "--type", "iscsi", "--portal", portal, "--target", IQN, "--quiet"], env=env, check=True)
        return "p/lun1", "iscsi://%s/%s/1" % (portal, IQN)

    def stop(self):
        self.tgt("kill")


class Ceph:
    needs = ("ceph-osd", "ceph-mon", "rbd", "qemu-img")
    plugin = "storage/ceph"
    shell = None

    def __init__(self, tmp):
        self.dir = tmp + "/c"

    def start(self, vhost, env):
        # The servers live as long as the shell that started them.
        self.shell = subprocess.Popen(["bash", "-c", '. "$1" && ceph_start "$2" memstore auth && echo up && read', "bash",
                                       SRC + "/tests/servers/ceph", self.dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if "up" not in self.shell.stdout.readline():
            sys.exit("the cluster does not start; its folder was " + self.dir)
        conf, ring = self.dir + "/ceph.conf", self.dir + "/vhost.keyring"
        subprocess.run([vhost, "pool", "define", "p", "--type", "ceph", "--pool", "rbd", "--conf", conf, "--keyring", ring, "--user", "vhost",
                        "--quiet"], env=env, check=True)
        subprocess.run([vhost, "vol", "create", "p/bench", "--size", "256M", "--quiet"], env=env, check=True)
        return "p/bench", "rbd:rbd/bench:id=vhost:conf=%s:keyring=%s" % (conf, ring)

    def stop(self):
        if self.shell:
            self.shell.communicate("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("server", choices=("iscsi", "ceph"))
    p.add_argument("--pairs", type=int, default=9)
    p.add_argument("--vhost", default=os.path.join(SRC, "build/core/vhost"))
    a = p.parse_args()
    tmp = tempfile.mkdtemp(prefix="vhost-bench-pools-")
    server = (Iscsi if a.server == "iscsi" else Ceph)(tmp)
    for need in server.needs:
        if not shutil.which(need):
            sys.exit("%s is not installed" % need)
    build = os.path.dirname(os.path.dirname(os.path.abspath(a.vhost)))
    env = dict(os.environ, VHOST_ROOT=tmp + "/root", VHOST_PLUGIN_PATH=":".join(
        os.path.join(build, "plugins", d) for d in (server.plugin, "formats/raw")))
    try:
        volume, url = server.start(a.vhost, env)
        # QEMU's rbd has librbd's cache on unless told otherwise; ours has none.
        qemu = ["qemu-img", "bench", "-f", "raw"] + (["-n"] if a.server == "iscsi" else ["-t", "none"])
        run(qemu + ["-w", "-c", "1024", "-d", "8", "-s", "1M", url], env)  # every block is there
        print("%-20s %9s %9s %7s %7s" % ("", "vhost/s", "QEMU/s", "ratio", "CPU"))
        for name, n, depth, size, write in ROWS:
            ours, theirs = [], []
            for i in range(a.pairs * 2):
                if i % 4 in (0, 3):
                    ours.append(run([a.vhost, "vol", "bench", volume, "--format", "raw", "--count", str(n), "--depth", str(depth),
                                     "--buffer-size", str(size), "--step-size", str(STEP.get(size, size)), "--shared-buffer"] +
                                    ["--write"] * write, env))
                else:
                    theirs.append(run(qemu + ["-c", str(n), "-d", str(depth), "-s", str(size), "-S", str(STEP.get(size, size))] +
                                      ["-w"] * write + [url], env))
            print("%-20s %9.0f %9.0f %7.2f %7.2f" % (
                name, n / statistics.median(t for t, _ in ours), n / statistics.median(t for t, _ in theirs),
                statistics.median(q[0] / v[0] for v, q in zip(ours, theirs)),
                statistics.median(v[1] / q[1] for v, q in zip(ours, theirs))), flush=True)
        print("load: %s" % open("/proc/loadavg").read().split()[0])
    finally:
        server.stop()
        shutil.rmtree(tmp)


main()
