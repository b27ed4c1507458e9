#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
"""iSCSI against QEMU's own driver: the same tgtd on loopback, one run of each in turn, ratios of each pair.

    tests/bench/bench-iscsi.py [--pairs N] [--vhost build/core/vhost]

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


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--pairs", type=int, default=9)
    p.add_argument("--vhost", default=os.path.join(SRC, "build/core/vhost"))
    a = p.parse_args()
    for need in ("tgtd", "qemu-img"):
        if not shutil.which(need):
            sys.exit("%s is not installed" % need)
    tmp = tempfile.mkdtemp(prefix="vhost-bench-iscsi-")
    build = os.path.dirname(os.path.dirname(os.path.abspath(a.vhost)))
    env = dict(os.environ, VHOST_ROOT=tmp + "/root", VHOST_PLUGIN_PATH=":".join(
        os.path.join(build, "plugins", d) for d in ("storage/iscsi", "formats/raw")))
    tgt = lambda *w: subprocess.run([SRC + "/tests/servers/tgt", w[0], tmp + "/tgt", *w[1:]], check=True, stdout=subprocess.DEVNULL)
    try:
        tgt("start")
        tgt("target", "1", IQN)
        tgt("lun", "1", "1", "1G")
        portal = "127.0.0.1:" + open(tmp + "/tgt/port").read().strip()
        url = "iscsi://%s/%s/1" % (portal, IQN)
        subprocess.run([a.vhost, "pool", "define", "san", "--type", "iscsi", "--portal", portal, "--target", IQN, "--quiet"], env=env, check=True)
        run(["qemu-img", "bench", "-n", "-f", "raw", "-w", "-c", "1024", "-d", "8", "-s", "1M", url], env)  # every block is there
        print("%-20s %9s %9s %7s %7s" % ("", "vhost/s", "QEMU/s", "ratio", "CPU"))
        for name, n, depth, size, write in ROWS:
            ours, theirs = [], []
            for i in range(a.pairs * 2):
                if i % 4 in (0, 3):
                    ours.append(run([a.vhost, "vol", "bench", "san/lun1", "--format", "raw", "--count", str(n), "--depth", str(depth),
                                     "--buffer-size", str(size), "--step-size", str(STEP.get(size, size)), "--shared-buffer"] + ["--write"] * write, env))
                else:
                    theirs.append(run(["qemu-img", "bench", "-n", "-f", "raw", "-c", str(n), "-d", str(depth), "-s", str(size), "-S",
                                       str(STEP.get(size, size))] +
                                      ["-w"] * write + [url], env))
            print("%-20s %9.0f %9.0f %7.2f %7.2f" % (
                name, n / statistics.median(t for t, _ in ours), n / statistics.median(t for t, _ in theirs),
                statistics.median(q[0] / v[0] for v, q in zip(ours, theirs)),
                statistics.median(v[1] / q[1] for v, q in zip(ours, theirs))), flush=True)
        print("load: %s" % open("/proc/loadavg").read().split()[0])
    finally:
        tgt("kill")
        shutil.rmtree(tmp)


main()
