#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
"""vhost against QEMU, side by side: interleaved rounds of the same bare-metal guest on the same host, in one run.

bench.py [--rounds N] [--only NAME,...] [--out FILE]   (through `./vh bench`, which sets VHOST, VHOST_PLUGIN_PATH and BUILDDIR)

Every row is the ratio vhost/QEMU of medians, with each side's median, minimum and maximum and a 95 % interval of the ratio by
bootstrap. A row whose goal is missed says so; the exit status is 0 whatever the ratios are: the machines are noisy."""
import argparse, os, platform, random, re, shutil, signal, statistics, subprocess, sys, tempfile, time

BUILD = os.environ['BUILDDIR']
VHOST = os.environ['VHOST']
GUEST = os.path.join(BUILD, 'tests/guest')
SHIM = os.path.join(BUILD, 'tests/bench/first-run.so')
FLOOD = os.path.join(BUILD, 'tests/bench/net-flood')
QEMU = 'qemu-system-x86_64'
QBOOT = '/usr/share/qemu/qboot.rom'
TIMEOUT = 60

work = tempfile.mkdtemp(prefix='vhost-bench-', dir='/var/tmp')
shm = tempfile.mkdtemp(prefix='vhost-bench-', dir='/dev/shm')
env = dict(os.environ, VHOST_ROOT=os.path.join(work, 'root'))


def run(argv, **kw):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw).stdout


class Guest:
    """One machine, started; `lines` is its serial output once wait() returns."""

    def __init__(self, argv, stamp=None, netns=None):
        e = dict(env)
        if stamp:
            e['LD_PRELOAD'], e['FIRST_RUN'] = SHIM, stamp
        if netns:
            argv = ['ip', 'netns', 'exec', netns] + argv
        self.began = time.monotonic_ns()
        self.p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=e)
        self.argv = argv

    def first(self, pattern):
        """The first line of its output, which must match."""
        line = self.p.stdout.readline()
        m = re.match(pattern, line)
        if not m:
            self.kill()
            raise RuntimeError('said %r: %s' % (line, ' '.join(self.argv)))
        return m

    def wait(self, seconds=TIMEOUT):
        try:
            out, err = self.p.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.p.kill()
            out, err = self.p.communicate()
            raise RuntimeError('no end within %d s: %s\n%s%s' % (seconds, ' '.join(self.argv), out[-500:], err[-500:]))
        self.lines = out.splitlines()
        if self.p.returncode not in (0, 10):
            raise RuntimeError('exit %d: %s\n%s%s' % (self.p.returncode, ' '.join(self.argv), out[-500:], err[-500:]))
        return self.lines

    def kill(self):
        self.p.kill()
        self.p.communicate()


def value(lines, key):
    for line in lines:
        m = re.search(r'\b%s=([0-9.]+)' % re.escape(key), line)
        if m:
            return float(m.group(1))
    raise RuntimeError('the guest printed no %s: %r' % (key, lines[-5:]))


def vhost(guest, cmdline, disks=(), nets=(), extra=(), memory='128M', cpus=1):
    a = [VHOST, 'run', '--name', 'bench-%d' % random.getrandbits(40), '--memory', memory, '--kernel', os.path.join(GUEST, 'guest-' + guest),
         '--cmdline', cmdline, '--on-reboot', 'exit', '--rng', 'off', '--balloon', 'off', '--cpus', str(cpus)]
    for d in disks:
        a += ['--disk', d]
    for n in nets:
        a += ['--net', n]
    return a + list(extra)


def qemu(machine, guest, cmdline, disks=(), nets=(), cpus=1):
    """disks: blockdev options of a node; nets: tap names."""
    a = [QEMU, '-M', {'microvm': 'microvm,acpi=off', 'q35': 'q35'}[machine], '-bios', QBOOT, '-accel', 'kvm', '-cpu', 'qemu64,-sse3',
         '-m', '128', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio',
         '-kernel', os.path.join(GUEST, 'guest-' + guest), '-append', cmdline]
    bus = {'microvm': 'virtio-blk-device', 'q35': 'virtio-blk-pci,disable-legacy=on'}[machine]
    nic = {'microvm': 'virtio-net-device', 'q35': 'virtio-net-pci,disable-legacy=on'}[machine]
    if machine == 'microvm':
        a += ['-global', 'virtio-mmio.force-legacy=false']
    for i, d in enumerate(disks):
        a += ['-object', 'iothread,id=t%d' % i, '-blockdev', d.replace('@', 'node-name=n%d,' % i, 1),
              '-device', '%s,drive=n%d,iothread=t%d' % (bus, i, i)]
    if cpus > 1:
        a += ['-smp', str(cpus)]
    for i, n in enumerate(nets):
        mq = (',queues=%d' % cpus, ',mq=on,vectors=%d' % (2 * cpus + 2)) if cpus > 1 else ('', '')
        a += ['-netdev', 'tap,id=h%d,ifname=%s,script=no,downscript=no,vhost=off%s' % (i, n, mq[0]), '-device',
              '%s,netdev=h%d,mac=02:00:00:00:be:%02x%s' % (nic, i, int(n[4:]), mq[1])]
    return a


# Rows -------------------------------------------------------------------------------------------------------------

rows = []


def ratio_interval(a, b, n=2000):
    r = random.Random(1)
    q = sorted(statistics.median(r.choices(a, k=len(a))) / statistics.median(r.choices(b, k=len(b))) for _ in range(n))
    return q[int(n * .025)], q[int(n * .975)]


def row(name, unit, a, b, goal, better, note=''):
    """better: 'more' or 'less'; goal: the ratio vhost/QEMU that is asked for, or None."""
    if not a or not b:
        rows.append([name, unit, '', '', 'not measured', '', '', note])
        return
    ma, mb = statistics.median(a), statistics.median(b)
    lo, hi = ratio_interval(a, b)
    ok = goal is None or (ma / mb >= goal if better == 'more' else ma / mb <= goal)
    verdict = '' if goal is None else ('reached' if ok else 'MISSED')
    f = lambda v: '%.0f' % v if v >= 100 else '%.3g' % v
    cells = [name, unit, '%s (%s–%s)' % (f(ma), f(min(a)), f(max(a))), '%s (%s–%s)' % (f(mb), f(min(b)), f(max(b))),
             '**%.2f** [%.2f, %.2f]' % (ma / mb, lo, hi),
             '' if goal is None else ('≥ %g' if better == 'more' else '≤ %g') % goal, verdict, note]
    rows.append(cells)
    print('%-44s %s  ratio %.2f [%.2f, %.2f] %s %s' % (name, unit, ma / mb, lo, hi, cells[5], verdict), flush=True)


def interleave(rounds, sides):
    """sides: name -> function giving a number; returns name -> list. The order turns every round; one round warms up."""
    got = {k: [] for k in sides}
    names = list(sides)
    for i in range(rounds + 1):
        for k in names if i % 2 else reversed(names):
            try:
                v = sides[k]()
            except RuntimeError as ex:
                print('bench: %s: %s' % (k, ex), file=sys.stderr)
                continue
            if i:
                got[k].append(v)
    return got


def bench_start(rounds, _):
    img = os.path.join(work, 'start.img')
    with open(img, 'wb') as f:
        f.truncate(64 << 20)
    ns = Namespace()
    stamp = os.path.join(work, 'stamp')

    def once(argv):
        if os.path.exists(stamp):
            os.unlink(stamp)
        g = Guest(argv, stamp=stamp, netns=ns.name)
        g.wait()
        with open(stamp) as f:
            return (int(f.read()) - g.began) / 1e6

    got = interleave(rounds, {
        'vhost': lambda: once(vhost('hello', 'end=reboot', ['path=%s,format=raw' % img], ['type=bridge,name=br0'])),
        'qemu': lambda: once(qemu('microvm', 'hello', 'end=reboot', ['driver=raw,@file.driver=file,file.filename=%s,cache.direct=on' % img], [ns.tap()])),
    })
    ns.close()
    row('exec to first guest instruction (1 disk, 1 NIC)', 'ms', got['vhost'], got['qemu'], .35, 'less', 'microvm with qboot; goal .25')


def peak(pid):
    out = {}
    with open('/proc/%d/status' % pid) as f:
        for line in f:
            k, v = line.split(':', 1)
            if k in ('VmHWM', 'RssShmem', 'RssAnon', 'RssFile'):
                out[k] = int(v.split()[0]) / 1024
    return out


def bench_memory(rounds, _):
    img = os.path.join(work, 'start.img')
    with open(img, 'wb') as f:
        f.truncate(64 << 20)
    ns = Namespace()

    def once(argv):
        g = Guest(argv, netns=ns.name)
        # `ip netns exec` execs: the pid is the machine's. The guest prints, and then spins.
        time.sleep(1.0)
        m = peak(g.p.pid)
        g.kill()
        return m['VmHWM']

    got = interleave(rounds, {
        'vhost': lambda: once(vhost('hello', 'end=hang', ['path=%s,format=raw' % img], ['type=bridge,name=br0'])),
        'qemu': lambda: once(qemu('microvm', 'hello', 'end=hang', ['driver=raw,@file.driver=file,file.filename=%s,cache.direct=on' % img], [ns.tap()])),
    })
    ns.close()
    row('peak resident memory (128 MiB guest, 1 disk, 1 NIC)', 'MiB', got['vhost'], got['qemu'], None, 'less',
        'goal: at most 10 MiB: %s' % ('reached' if statistics.median(got['vhost']) <= 10 else 'MISSED'))


def blk_sides(where, cmdline, memory='128M'):
    if where == 'null':
        v, q = 'type=null,volume=x,pool.size=1G,format=raw', 'driver=null-co,@size=1073741824,read-zeroes=off'
    else:
        img = os.path.join(work if where == 'file' else shm, 'disk.img')
        if not os.path.exists(img):
            with open(img, 'wb') as f:
                for _ in range(1024):
                    f.write(random.randbytes(1 << 20))
                os.fsync(f.fileno())
        v = 'path=%s,format=raw' % img
        q = 'driver=raw,@file.driver=file,file.filename=%s,cache.direct=on,file.aio=native' % img
    return {
        'vhost': lambda: value(Guest(vhost('blkbench', cmdline, [v], memory=memory)).wait(), 'iops'),
        'qemu': lambda: value(Guest(qemu('q35', 'blkbench', cmdline, [q])).wait(), 'iops'),
    }


def bench_blk(rounds, seconds):
    goals = {('null', 1): 1.3, ('null', 128): 1.3, ('tmpfs', 1): 1.3, ('tmpfs', 128): 1.3, ('file', 32): 1.0}
    for where in ('null', 'tmpfs', 'file'):
        for op in ('randread', 'randwrite'):
            for depth in (1, 32, 128):
                got = interleave(rounds, blk_sides(where, 'rw=%s bs=4096 depth=%d ms=%d' % (op, depth, int(seconds * 1000))))
                row('4k %s, depth %d, %s' % (op, depth, where), 'IOPS', got['vhost'], got['qemu'], goals.get((where, depth)), 'more')
        got = interleave(rounds, blk_sides(where, 'rw=read bs=131072 depth=8 ms=%d' % int(seconds * 1000)))
        row('128k sequential read, depth 8, %s' % where, 'IOPS', got['vhost'], got['qemu'], None, 'more')
    # QEMU's guest memory is anonymous and so in huge pages, ours in small ones by default: more pieces for a disk
    got = interleave(rounds, blk_sides('file', 'rw=read bs=131072 depth=8 ms=%d' % int(seconds * 1000), '128M,thp=on'))
    row('128k sequential read, depth 8, file, thp=on', 'IOPS', got['vhost'], got['qemu'], 1, 'more')
    got = interleave(rounds, blk_sides('file', 'rw=flush bs=4096 depth=1 ms=%d' % int(seconds * 1000)))
    row('flush, depth 1, file', 'IOPS', got['vhost'], got['qemu'], None, 'more')


class Namespace:
    """A network namespace with bridge br0 (192.0.2.1/24), and persistent taps in it for QEMU."""

    def __init__(self):
        self.name = 'vhbench%d' % os.getpid()
        run(['ip', 'netns', 'add', self.name])
        self.ip('link', 'add', 'br0', 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0')
        self.ip('addr', 'add', '192.0.2.1/24', 'dev', 'br0')
        self.ip('link', 'set', 'br0', 'up')
        self.ip('link', 'set', 'lo', 'up')
        self.taps = 0

    def ip(self, *a):
        return run(['ip', '-n', self.name] + list(a))

    def tap(self, queues=1):
        name = 'qtap%d' % self.taps
        self.taps += 1
        self.ip('tuntap', 'add', 'dev', name, 'mode', 'tap', 'vnet_hdr', *(['multi_queue'] if queues > 1 else []))
        self.ip('link', 'set', name, 'master', 'br0', 'up')
        return name

    def close(self):
        run(['ip', 'netns', 'del', self.name])


def bench_net(rounds, seconds):
    """One core or two for a sender, a receiver and the machines between them: what is compared is the sides, not the figures.
    A stream is of large TCP frames, which the host would cut; nobody acknowledges them."""
    ns = Namespace()
    tap, tap2, mq = ns.tap(), ns.tap(), ns.tap(4)
    ms = int(seconds * 1000)

    def machine(side, guest, cmd, which=0, queues=1):
        if side == 'vhost':
            net = 'type=bridge,name=br0' + (',queues=%d' % queues if queues > 1 else '')
            argv = vhost(guest, cmd, nets=[net], cpus=queues)
        else:
            argv = qemu('q35', guest, cmd, nets=[mq if queues > 1 else tap2 if which else tap], cpus=queues)
        return Guest(argv, netns=ns.name)

    def both(fn, *a):
        return interleave(rounds, {side: lambda side=side: fn(side, *a) for side in ('vhost', 'qemu')})

    def send(side, what, queues, key):
        return value(machine(side, 'netbench', '%s ms=%d queues=%d' % (what, ms, queues), queues=queues).wait(), key)

    def receive(side, gso, queues, key):
        g = machine(side, 'netsink', 'gso=%d ms=%d queues=%d' % (gso, ms, queues), queues=queues)
        mac = g.first('netsink: ([0-9a-f]{12})').group(1)
        flood = subprocess.Popen(['ip', 'netns', 'exec', ns.name, FLOOD, 'br0', mac, '65000' if gso else '64', str(queues)])
        try:
            return value(g.wait(), key)
        finally:
            flood.kill()
            flood.wait()

    def through(side, gso, key):
        sink = machine(side, 'netsink', 'gso=%d ms=%d' % (gso, ms))
        mac = sink.first('netsink: ([0-9a-f]{12})').group(1)
        source = machine(side, 'netbench', 'gso=%d to=%s ms=%d' % (gso, mac, ms + 20000), 1)
        try:
            return value(sink.wait(), key)
        finally:
            source.kill()

    for queues in (1, 4):
        got = both(send, 'len=64', queues, 'pps')
        row('64-byte frames from a guest, %d queue%s' % (queues, 's' * (queues > 1)), 'packets/s', got['vhost'], got['qemu'], 1.2, 'more')
        got = both(receive, 0, queues, 'pps')
        row('64-byte frames to a guest, %d queue%s' % (queues, 's' * (queues > 1)), 'packets/s', got['vhost'], got['qemu'], 1.2, 'more')
    got = both(through, 0, 'pps')
    row('64-byte frames from guest to guest', 'packets/s', got['vhost'], got['qemu'], 1.2, 'more')
    for queues in (1, 4):
        got = both(send, 'gso=1', queues, 'mbps')
        row('stream from a guest, %d queue%s' % (queues, 's' * (queues > 1)), 'Mbit/s', got['vhost'], got['qemu'], 1, 'more')
        got = both(receive, 1, queues, 'mbps')
        row('stream to a guest, %d queue%s' % (queues, 's' * (queues > 1)), 'Mbit/s', got['vhost'], got['qemu'], 1, 'more')
    got = both(through, 1, 'mbps')
    row('stream from guest to guest', 'Mbit/s', got['vhost'], got['qemu'], 1, 'more')

    def ping(argv):
        g = Guest(argv, netns=ns.name)
        try:
            for _ in range(100):
                if subprocess.run(['ip', 'netns', 'exec', ns.name, 'ping', '-c1', '-W1', '-q', '192.0.2.2'], stdout=subprocess.DEVNULL).returncode == 0:
                    break
            out = run(['ip', 'netns', 'exec', ns.name, 'ping', '-q', '-i', '0.002', '-c', '1000', '192.0.2.2'])
            return float(re.search(r'= [0-9.]+/([0-9.]+)/', out).group(1)) * 1000
        except subprocess.CalledProcessError as ex:
            raise RuntimeError('ping: %s' % ex.stdout[-300:])
        finally:
            g.kill()

    got = interleave(rounds, {
        'vhost': lambda: ping(vhost('netecho', 'ip=192.0.2.2 secs=60', nets=['type=bridge,name=br0'])),
        'qemu': lambda: ping(qemu('q35', 'netecho', 'ip=192.0.2.2 secs=60', nets=[tap])),
    })
    ns.close()
    row('ping, host to guest, mean of 1000', 'us', got['vhost'], got['qemu'], .9, 'less')


BENCHES = {'start': bench_start, 'memory': bench_memory, 'blk': bench_blk, 'net': bench_net}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=11)
    p.add_argument('--seconds', type=float, default=2, help='of one measurement of a disk or NIC')
    p.add_argument('--only', default=','.join(BENCHES))
    p.add_argument('--out')
    a = p.parse_args()
    try:
        for name in a.only.split(','):
            if name not in BENCHES:
                sys.exit('bench: no bench %s (there are %s)' % (name, ', '.join(BENCHES)))
            BENCHES[name](a.rounds, a.seconds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(shm, ignore_errors=True)
        subprocess.run(['ip', 'netns', 'del', 'vhbench%d' % os.getpid()], stderr=subprocess.DEVNULL)
    table = ['| figure | unit | vhost: median (min–max) | QEMU: median (min–max) | ratio [95 %] | goal | | note |', '|' + '---|' * 8]
    table += ['| ' + ' | '.join(r) + ' |' for r in rows]
    head = ['Host: Linux %s, %d cores; %s; %d interleaved rounds after one that warms up; `%s`; %s' % (
        platform.release(), os.cpu_count(), run([QEMU, '--version']).splitlines()[0], a.rounds, './vh bench' + ''.join(' ' + x for x in sys.argv[1:]),
        time.strftime('%Y-%m-%d', time.gmtime())), '']
    text = '\n'.join(head + table) + '\n'
    print('\n' + text)
    if a.out:
        with open(a.out, 'w') as f:
            f.write(text)


main()
