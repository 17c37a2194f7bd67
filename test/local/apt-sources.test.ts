import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatDeb822,
  newerSuites,
  parseDeb822,
  parseOneLine,
  parseOsRelease,
} from '../../deploy/local/apt-sources.ts';

const deb822 = `# comment
Types: deb deb-src
# inside a stanza
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: https://other.example/apt
Suites: ./
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
`;

test('deb822: binary sources that are on, with options and keys of several lines', () => {
  const sources = parseDeb822(deb822);
  assert.equal(sources.length, 2);
  assert.deepEqual(sources[0], {
    uris: ['http://mirror.example/debian'],
    suites: ['bookworm', 'bookworm-updates'],
    components: ['main', 'contrib'],
    options: { 'Signed-By': '/usr/share/keyrings/archive.gpg' },
  });
  assert.deepEqual(sources[1]?.components, []);
  assert.match(sources[1]?.options['Signed-By'] ?? '', /BEGIN PGP[\s\S]*\n \.\n abc\n[\s\S]*END PGP/);
});

test('deb822: what is written reads back the same', () => {
  const sources = parseDeb822(deb822);
  assert.deepEqual(parseDeb822(formatDeb822(sources)), sources);
});

test('one line: options, comments, discs and source packages', () => {
  const sources = parseOneLine(`
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # trailing words
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64,arm64 signed-by=/etc/apt/keyrings/key.asc trusted=yes] https://other.example/apt stable main
deb cdrom:[Debian]/ bookworm main
deb https://flat.example/apt ./
`);
  assert.deepEqual(sources, [
    {
      uris: ['http://mirror.example/debian'],
      suites: ['bookworm'],
      components: ['main', 'contrib'],
      options: {},
    },
    {
      uris: ['https://other.example/apt'],
      suites: ['stable'],
      components: ['main'],
      options: { Architectures: 'amd64 arm64', 'Signed-By': '/etc/apt/keyrings/key.asc', Trusted: 'yes' },
    },
    { uris: ['https://flat.example/apt'], suites: ['./'], components: [], options: {} },
  ]);
});

test('newer suites keep the mirror, the components and the keys of the machine', () => {
  const debian = parseOsRelease('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n');
  assert.ok(debian);
  assert.equal(debian.release, 'debian-12');
  const newer = newerSuites(parseDeb822(deb822), debian);
  assert.deepEqual(
    newer.map(source => source.suites),
    [['trixie'], ['stable'], ['unstable']],
  );
  for (const source of newer) {
    assert.deepEqual(source.uris, ['http://mirror.example/debian']);
    assert.deepEqual(source.options, { 'Signed-By': '/usr/share/keyrings/archive.gpg' });
  }
  const mint = parseOsRelease("ID=linuxmint\nID_LIKE='ubuntu debian'\nVERSION_CODENAME=wilma\n");
  assert.ok(mint);
  assert.deepEqual(newerSuites(parseDeb822(deb822), mint), [], 'no source of this distribution, no guess');
  assert.equal(parseOsRelease('ID=fedora\nVERSION_ID=42\n'), undefined);
});
