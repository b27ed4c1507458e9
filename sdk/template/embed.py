# SPDX-License-Identifier: BSD-2-Clause
# Copyright The vhost authors
"""Writes the templates as one C array: embed.py OUT FILE..., FILE being .../KIND/NAME."""
import os
import sys


def literal(text):
    lines = []
    for line in text.splitlines(keepends=True):
        line = line.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n').replace('\t', '\\t')
        lines.append('\t\t"%s"' % line)
    return '\n'.join(lines)


with open(sys.argv[1], 'w', encoding='utf-8') as out:
    out.write('static const struct { const char *kind, *name, *text; } template_files[] = {\n')
    for path in sys.argv[2:]:
        with open(path, encoding='utf-8') as f:
            kind, name = path.split(os.sep)[-2:]
            out.write('\t{"%s", "%s",\n%s},\n' % (kind, name, literal(f.read())))
    out.write('};\n')
