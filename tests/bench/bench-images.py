#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copyright The vhost authors
"""Image commands against qemu-img, side by side: the same work on the same host in one run, the two taking turns.

bench-images.py [--rounds N] [--only PATTERN,...] [--size BYTES] [--dir DIR] [--out FILE]   (VHOST, VHOST_PLUGIN_PATH)

The corpus is a tar of /usr/lib cut to --size (1 GiB), kept in VHOST_CACHE. vhost's conversions are durable when they end. qemu-img is
given in two ways: "-t none -T none -m 16 -W", whose end is durable as well and which the goals are held against, and
"-m 16 -W" with its default cache mode, which leaves the target in the page cache (rows "unsafe"). Times are the smaller of the rounds'
walls: on a shared host the noise only ever adds. A goal that is missed says so; the exit status is 0 whatever the ratios are."""
import argparse, fnmatch, json, os, platform, re, resource, shutil, subprocess, sys, tempfile, time

VHOST = os.environ.get('VHOST', 'vhost')
CACHE = os.environ.get('VHOST_CACHE', '/var/cache/vhost')
rows = []
DURABLE = ['-t', 'none', '-T', 'none', '-m', '16', '-W']
UNSAFE = ['-m', '16', '-W']


def call(argv, parse=None):
    """Wall seconds (parse: instead of that, a number out of the output), peak KiB, CPU seconds of a command."""
    peak = None
    if shutil.which('time'): # a child of this program counts this program's memory as well, until it is another one
        peak = tempfile.NamedTemporaryFile()
        argv = [shutil.which('time'), '-f', '%M', '-o', peak.name] + argv
    t = time.monotonic()
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = p.stdout.read(), p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    wall = time.monotonic() - t
    if status:
        raise RuntimeError('%s\n%s' % (' '.join(argv), err.decode(errors='replace')[-600:]))
    kib = int(peak.read().split()[-1]) if peak else 0
    return (parse(out.decode()) if parse else wall), kib, usage.ru_utime + usage.ru_stime


def forget(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


class Bench:
    def __init__(self, args, work):
        self.a, self.work = args, work

    def p(self, name):
        return os.path.join(self.work, name)

    def wanted(self, name):
        return not self.a.only or any(fnmatch.fnmatch(name, w) for w in self.a.only.split(','))

    def row(self, name, ours, theirs, goal=None, unit='s', target=None, parse=None, more=None, note=''):
        """ours, theirs: commands ({} in them: the target). parse: a rate, where more is better (goal: at least)."""
        if not self.wanted(name):
            return
        best, cpu, peak, extra = [None, None], [0, 0], [0, 0], [None, None]
        try:
            for n in range(self.a.rounds):
                for side, argv in enumerate((ours, theirs) if n % 2 == 0 else (theirs, ours)):
                    side = side if n % 2 == 0 else 1 - side
                    t = self.p('target%d' % side)
                    forget(t)
                    v, kib, c = call([x.replace('{}', t) for x in argv], (parse[side] if parse else None))
                    better = best[side] is None or (v > best[side] if parse else v < best[side])
                    if better:
                        best[side], cpu[side] = v, c
                    peak[side] = max(peak[side], kib)
                    if more and os.path.exists(t):
                        extra[side] = more(t)
                    forget(t)
        except RuntimeError as e:
            rows.append((name, unit, None, None, None, goal, 'failed: %s' % str(e).splitlines()[-1], parse is not None))
            print('%s: %s' % (name, e), file=sys.stderr)
            return
        notes = [note] if note else []
        if unit == 's':
            notes.append('cpu %.2f / %.2f s; peak %.0f / %.0f MiB' % (cpu[0], cpu[1], peak[0] / 1024, peak[1] / 1024))
        if extra[0] and extra[1]:
            notes.append('space %.2fx' % (extra[0] / extra[1]))
        rows.append((name, unit, best[0], best[1], best[0] / best[1], goal, '; '.join(notes), parse is not None))
        print('%-44s %10.3f %10.3f  %.2f  %s' % (name, best[0], best[1], best[0] / best[1], '; '.join(notes)), flush=True)


def corpus(size):
    path = os.path.join(CACHE, 'bench-corpus-%d.raw' % size)
    if not (os.path.exists(path) and os.path.getsize(path) == size):
        os.makedirs(CACHE, exist_ok=True)
        with open(path + '~', 'wb') as f:
            p = subprocess.Popen(['tar', 'cf', '-', '-C', '/usr', 'lib'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            left = size
            while left:
                b = p.stdout.read(min(left, 1 << 20))
                if not b:
                    break
                f.write(b)
                left -= len(b)
            p.kill()
            p.wait()
            f.truncate(size)
        os.rename(path + '~', path)
    return path


def blocks(path):
    return os.stat(path).st_blocks * 512


def has_format(name):
    return any(os.path.exists(os.path.join(d, name + '.so')) for d in os.environ.get('VHOST_PLUGIN_PATH', '').split(':'))


def conversions(b, raw):
    v, q = [VHOST, 'img', 'convert', '-q'], ['qemu-img', 'convert']
    src = b.p('src.qcow2')
    if any(b.wanted(n) for n in ('qcow2 to raw', 'qcow2 to raw, unsafe')):
        subprocess.run(q + ['-f', 'raw', '-O', 'qcow2', raw, src], check=True)
        os.sync()
    b.row('raw to raw', v + ['-f', 'raw', raw, '{}'], q + DURABLE + ['-f', 'raw', '-O', 'raw', raw, '{}'], 0.6)
    b.row('raw to qcow2', v + ['-f', 'raw', '-O', 'qcow2', raw, '{}'], q + DURABLE + ['-f', 'raw', '-O', 'qcow2', raw, '{}'], 0.6, more=blocks)
    b.row('qcow2 to raw', v + ['-f', 'qcow2', src, '{}'], q + DURABLE + ['-f', 'qcow2', '-O', 'raw', src, '{}'], 0.6)
    b.row('raw to qcow2, unsafe', v + ['-f', 'raw', '-O', 'qcow2', raw, '{}'], q + UNSAFE + ['-f', 'raw', '-O', 'qcow2', raw, '{}'],
          note='QEMU leaves it in the page cache')
    b.row('qcow2 to raw, unsafe', v + ['-f', 'qcow2', src, '{}'], q + UNSAFE + ['-f', 'qcow2', '-O', 'raw', src, '{}'],
          note='QEMU leaves it in the page cache')
    forget(src)


def compressed(b, raw):
    v, q = [VHOST, 'img', 'convert', '-q', '-c', '-f', 'raw'], ['qemu-img', 'convert', '-c'] + DURABLE + ['-f', 'raw']
    zl = q + ['-O', 'qcow2', raw, '{}']
    b.row('compressed, zlib', v + ['-O', 'qcow2', raw, '{}'], zl, 1.0, more=blocks)
    b.row('compressed, fast', v + ['--compress-level', 'fast', '-O', 'qcow2', raw, '{}'], zl, 0.4, more=blocks, note='space: at most 1.10x')
    b.row('compressed, zstd', v + ['-O', 'qcow2', '-o', 'compression_type=zstd', raw, '{}'],
          q + ['-O', 'qcow2', '-o', 'compression_type=zstd', raw, '{}'], 0.8, more=blocks)
    if has_format('vmdk'):
        q = ['qemu-img', 'convert'] + DURABLE + ['-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, '{}']
        v = [VHOST, 'img', 'convert', '-q', '-c', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, '{}']
        b.row('streamOptimized', v, q, 0.6, more=blocks)


def small(b, raw):
    img, big = b.p('info.qcow2'), b.p('big.qcow2')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', img, '1G'], check=True)
    b.row('info', [VHOST, 'img', 'info', '-f', 'qcow2', img], ['qemu-img', 'info', img], 1.0)
    b.row('create of 10 TiB', [VHOST, 'img', 'create', '-f', 'qcow2', '{}', '10T'], ['qemu-img', 'create', '-f', 'qcow2', '{}', '10T'], 1.0)
    if b.wanted('empty 10 TiB to qcow2') or b.wanted('empty 10 TiB to qcow2, unsafe'):
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', big, '10T'], check=True)
        b.row('empty 10 TiB to qcow2', [VHOST, 'img', 'convert', '-q', '-f', 'qcow2', '-O', 'qcow2', big, '{}'],
              ['qemu-img', 'convert'] + DURABLE + ['-f', 'qcow2', '-O', 'qcow2', big, '{}'], 1.0)
        b.row('empty 10 TiB to qcow2, unsafe', [VHOST, 'img', 'convert', '-q', '-f', 'qcow2', '-O', 'qcow2', big, '{}'],
              ['qemu-img', 'convert'] + UNSAFE + ['-f', 'qcow2', '-O', 'qcow2', big, '{}'], note='QEMU leaves it in the page cache')
    if b.wanted('chain of 64 to raw') or b.wanted('compare'):
        last, fmt = b.p('chain0'), 'raw'
        with open(last, 'wb') as f:
            f.truncate(64 << 20)
        for k in range(1, 65):
            n = b.p('chain%d' % k)
            subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', os.path.basename(last), '-F', fmt, n], check=True)
            subprocess.run(['qemu-io', '-f', 'qcow2', '-c', 'write -q -P %d %dk 128k' % (k, k * 960), n], check=True, stdout=subprocess.DEVNULL)
            last, fmt = n, 'qcow2'
        b.row('chain of 64 to raw', [VHOST, 'img', 'convert', '-q', '-f', 'qcow2', last, '{}'],
              ['qemu-img', 'convert'] + DURABLE + ['-f', 'qcow2', '-O', 'raw', last, '{}'], 1.0)
        for k in range(65):
            forget(b.p('chain%d' % k))
    if b.wanted('compare'):
        one = b.p('same.qcow2')
        subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, one], check=True)
        b.row('compare', [VHOST, 'img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, one],
              ['qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, one], 1.0)
        forget(one)


def requests(b):
    """4 KiB requests on qcow2: mapped (allocated before) and allocating, as `bench` of both sends them."""
    n = 40000

    def rate_v(out):
        return json.loads(out)['per_second']

    def rate_q(out):
        return n / float(re.search(r'completed in ([0-9.]+)', out).group(1))

    full, t = b.p('mapped.qcow2'), b.p('alloc')
    if any(b.wanted(x) for x in ('4k read, mapped qcow2', '4k write, mapped qcow2')):
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'preallocation=full', full, '512M'], check=True)
        for depth in ('1', '64'):
            for name, flag in (('read', []), ('write', ['-w'])):
                b.row('4k %s, mapped qcow2, depth %s' % (name, depth),
                      [VHOST, 'img', 'bench', '-f', 'qcow2', full, '-c', str(n), '-d', depth, '--json'] + flag,
                      ['qemu-img', 'bench', '-f', 'qcow2', '-t', 'none', '-n', '-c', str(n), '-d', depth] + flag + [full],
                      unit='IOPS', parse=(rate_v, rate_q), goal=1.0)
    for depth in ('1', '64'):
        name = '4k write, allocating qcow2, depth ' + depth
        step = str(65536)
        m = 8000
        make = 'qemu-img create -q -f qcow2 {} 1G && '
        b.row(name, ['sh', '-c', make + '"%s" img bench -f qcow2 {} -c %d -d %s -w -S %s --json' % (VHOST, m, depth, step)],
              ['sh', '-c', make + 'qemu-img bench -f qcow2 -t none -n -c %d -d %s -w -S %s {}' % (m, depth, step)],
              unit='IOPS', parse=(rate_v, lambda out: m / float(re.search(r'completed in ([0-9.]+)', out).group(1))),
              goal=3.0 if depth == '64' else 1.0)
    for depth in ('1', '16', '64'):
        n = 20000 if depth == '1' else 60000
        b.row('4k write in a row, new qcow2, depth ' + depth,
              ['sh', '-c', make + '"%s" img bench -f qcow2 {} -c %d -d %s -w --json' % (VHOST, n, depth)],
              ['sh', '-c', make + 'qemu-img bench -f qcow2 -t none -n -c %d -d %s -w {}' % (n, depth)], unit='IOPS', parse=(rate_v, rate_q),
              goal=1.0)
    forget(full)
    forget(t)


def reflink(b, raw):
    name = 'raw to qcow2, reflink (%s)'
    for fs, mkfs in (('xfs', ['mkfs.xfs', '-q', '-m', 'reflink=1']), ('btrfs', ['mkfs.btrfs', '-q'])):
        if not b.wanted(name % fs):
            continue
        if os.getuid() or not shutil.which(mkfs[0]):
            print('%s: left out: needs root and %s' % (name % fs, mkfs[0]), file=sys.stderr)
            continue
        disk, mnt = b.p('fs.img'), b.p('mnt')
        with open(disk, 'wb') as f:
            f.truncate(4 * os.path.getsize(raw) + (1 << 30))
        os.makedirs(mnt, exist_ok=True)
        try:
            subprocess.run(mkfs + [disk], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run(['mount', '-o', 'loop', disk, mnt], check=True, stderr=subprocess.DEVNULL)
        except subprocess.CalledProcessError:
            print('%s: left out: %s cannot be made or mounted here' % (name % fs, fs), file=sys.stderr)
            forget(disk)
            continue
        try:
            inside, work = os.path.join(mnt, 'raw'), b.work
            shutil.copyfile(raw, inside)
            os.sync()
            b.work = mnt
            b.row(name % fs, [VHOST, 'img', 'convert', '-q', '-f', 'raw', '-O', 'qcow2', inside, '{}'],
                  ['qemu-img', 'convert'] + DURABLE + ['-f', 'raw', '-O', 'qcow2', inside, '{}'], 0.1)
            b.work = work
        finally:
            b.work = work
            subprocess.run(['umount', mnt], check=True)
            forget(disk)


def huge(b):
    """Internal snapshots and check of 1 TiB that is mapped from end to end (preallocated metadata). Snapshots add up in both alike."""
    names = 'snapshot of a mapped TiB', 'check of a mapped TiB'
    if not any(b.wanted(n) for n in names):
        return
    ours, theirs = b.p('huge0.qcow2'), b.p('huge1.qcow2')
    for path in (ours, theirs):
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, '1T'], check=True)
    b.row(names[1], [VHOST, 'img', 'check', '-q', '-f', 'qcow2', ours], ['qemu-img', 'check', '-q', '-f', 'qcow2', theirs], 0.5)
    b.row(names[0], ['sh', '-c', '"%s" img snapshot create -f qcow2 "%s" s$(date +%%N)' % (VHOST, ours)],
          ['sh', '-c', 'qemu-img snapshot -c s$(date +%%N) "%s"' % theirs], 0.1)
    forget(ours)
    forget(theirs)


def lookups(b):
    """What a mapped request costs over one of raw, on a volume that answers at once (tests/bench/fmt-map)."""
    tool = os.path.join(os.environ.get('BUILDDIR', ''), 'tests/bench/fmt-map')
    formats = [f for f in ('qcow2', 'vmdk', 'vdi') if has_format(f) and b.wanted('mapped 4k ' + f)]
    if not formats:
        return
    if not os.path.exists(tool):
        print('mapped 4k: left out: no %s' % tool, file=sys.stderr)
        return
    raw = b.p('map.raw')
    with open(raw, 'wb') as f:
        for _ in range(256):
            f.write(os.urandom(1 << 20))
    argv = ['raw=' + raw]
    for f in formats:
        subprocess.run([VHOST, 'img', 'convert', '-q', '-f', 'raw', '-O', f, raw, b.p('map.' + f)], check=True)
        argv.append('%s=%s' % (f, b.p('map.' + f)))
    got = {}
    for depth in ('1', '32'):
        out = subprocess.run([tool, '9', '1000000' if depth == '32' else '300000', depth] + argv, check=True, stdout=subprocess.PIPE, text=True).stdout
        for m in re.finditer(r'^(\S+) (read|write) depth \d+: ([0-9.]+) ns \(([0-9.]+) to ([0-9.]+)\), (\d+) plugin calls$', out, re.M):
            got[m[1], m[2], depth] = float(m[4]), 'median %s, at most %s; %s plugin calls in 9 runs' % (m[3], m[5], m[6])
    for f in formats:
        for op in ('read', 'write'):
            for depth in ('1', '32'):
                (ns, note), (flat, _) = got[f, op, depth], got['raw', op, depth]
                rows.append(('mapped 4k %s, %s, depth %s' % (f, op, depth), 'ns', ns, flat, ns - flat, 100,
                             'CPU time, smallest of 9; second column: raw, third: the difference; ' + note, False))
                print('%-44s %10.1f %10.1f  %.1f' % (rows[-1][0], ns, flat, ns - flat), flush=True)
    for f in ['raw'] + formats:
        forget(b.p('map.' + f))


def table(args, raw):
    u = os.uname()
    qemu = subprocess.run(['qemu-img', '--version'], stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]
    out = ['Host: %s %s, %d cores; %s; smallest of %d interleaved rounds; corpus: a tar of /usr/lib cut to %d MiB; %s' %
           (u.sysname, u.release, os.cpu_count(), qemu, args.rounds, os.path.getsize(raw) >> 20, time.strftime('%Y-%m-%d')), '',
           '| figure | unit | vhost | qemu-img | ratio | goal | | note |', '|---|---|---|---|---|---|---|---|']
    for name, unit, a, z, ratio, goal, note, more in rows:
        if ratio is None:
            out.append('| %s | %s | - | - | - | %s | failed | %s |' % (name, unit, goal or '', note))
            continue
        f = '%.0f' if unit == 'IOPS' else '%.3f'
        mark = '' if goal is None else 'reached' if (ratio >= goal if more else ratio <= goal) else '**missed**'
        out.append('| %s | %s | %s | %s | **%.2f** | %s | %s | %s |' % (
            name, unit, f % a, f % z, ratio, '' if goal is None else ('≥ %g' if more else '≤ %g') % goal, mark, note))
    return '\n'.join(out) + '\n'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--only', default='')
    p.add_argument('--size', type=int, default=1 << 30)
    p.add_argument('--dir', default='/var/tmp')
    p.add_argument('--out')
    args = p.parse_args()
    for tool in ('qemu-img', 'qemu-io', 'tar'):
        if not shutil.which(tool):
            sys.exit('%s is not installed' % tool)
    raw = corpus(args.size)
    with open(raw, 'rb') as f: # both find it in the page cache
        while f.read(1 << 24):
            pass
    work = tempfile.mkdtemp(prefix='vhost-bench-', dir=args.dir)
    os.environ['VHOST_ROOT'] = os.path.join(work, 'root')
    b = Bench(args, work)
    try:
        if has_format('qcow2'):
            conversions(b, raw)
            reflink(b, raw)
            small(b, raw)
            lookups(b)
            huge(b)
            requests(b)
            compressed(b, raw)
        else:
            print('the plugin qcow2 is not built: nothing to compare', file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = table(args, raw)
    print(text)
    if args.out:
        with open(args.out, 'w') as f:
            f.write(text)


main()
