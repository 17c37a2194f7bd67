/**
 * A Chromium for pictures and tests of the dashboard: the machine's own, or the distribution's package unpacked
 * privately with its libraries and one font.
 */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { libraryPath, unpackPackages } from './apt-packages.ts';
import { executables, searchFolders } from './on-machine.ts';
import { runCommand } from './run-command.ts';

export interface Chromium {
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
  /** What it needs on this machine, e.g. `--no-sandbox`. */
  readonly args: readonly string[];
  readonly version: string;
}

export type ChromiumFound =
  | { readonly chromium: Chromium }
  | { readonly chromium: null; readonly reason: string };

export interface ChromiumOptions {
  readonly cacheDirectory: string;
  readonly report: (line: string) => void;
  /** Where to look; on the machine first, then in packages. */
  readonly places?: readonly ('machine' | 'packages')[];
}

const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome', 'chrome'];

/** Launch it with playwright-core as `{ executablePath: path, args, env: { ...process.env, ...env } }`. */
export async function findChromium(options: ChromiumOptions): Promise<ChromiumFound> {
  const places = options.places ?? ['machine', 'packages'];
  if (places.includes('machine')) {
    for (const path of onMachine()) {
      const chromium = await thatRuns(path, {});
      if (chromium) return { chromium };
    }
  }
  if (!places.includes('packages')) return { chromium: null, reason: 'there is no Chromium on this machine' };

  const [outcome] = await unpackPackages(
    [
      {
        name: 'chromium',
        packages: () => Promise.resolve(['chromium', 'fonts-dejavu-core', 'fontconfig-config']),
        check: async root =>
          (await inRoot(root)) ? undefined : 'Chromium from its package does not run here',
      },
    ],
    options.cacheDirectory,
    options.report,
  );
  if (!outcome || 'reason' in outcome) return { chromium: null, reason: outcome?.reason ?? '' };
  const chromium = await inRoot(outcome.root);
  return chromium ? { chromium } : { chromium: null, reason: 'Chromium from its package does not run here' };
}

function onMachine(): string[] {
  const folders = [
    ...searchFolders(),
    '/Applications/Google Chrome.app/Contents/MacOS',
    '/Applications/Chromium.app/Contents/MacOS',
  ];
  return [
    ...names.flatMap(name => executables(name, folders)),
    ...['Google Chrome', 'Chromium'].flatMap(name => executables(name, folders.slice(-2))),
    ...playwrightBrowsers(),
  ];
}

/** Browsers that Playwright was told to install earlier. */
function playwrightBrowsers(): string[] {
  const folder = process.env.PLAYWRIGHT_BROWSERS_PATH ?? join(homedir(), '.cache', 'ms-playwright');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter(name => name.startsWith('chromium-'))
    .sort()
    .reverse()
    .flatMap(name => ['chrome-linux', 'chrome-linux64'].map(part => join(folder, name, part, 'chrome')))
    .filter(path => existsSync(path));
}

async function inRoot(root: string): Promise<Chromium | undefined> {
  const path = join(root, 'usr/lib/chromium/chromium');
  if (!existsSync(path)) return undefined;
  return thatRuns(path, {
    LD_LIBRARY_PATH: [join(root, 'usr/lib/chromium'), libraryPath(root)].join(':'),
    FONTCONFIG_FILE: fontConfiguration(root),
  });
}

/** The machine may have no fonts and no configuration of them at all. */
function fontConfiguration(root: string): string {
  const folder = join(root, '..', 'fontconfig');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'fonts.conf');
  const families = [
    ['sans-serif', 'DejaVu Sans'],
    ['serif', 'DejaVu Serif'],
    ['monospace', 'DejaVu Sans Mono'],
  ];
  const text = [
    '<?xml version="1.0"?>',
    '<!DOCTYPE fontconfig SYSTEM "fonts.dtd">',
    '<fontconfig>',
    ...[join(root, 'usr/share/fonts'), '/usr/share/fonts'].map(dir => `  <dir>${dir}</dir>`),
    `  <cachedir>${join(folder, 'cache')}</cachedir>`,
    ...families.map(
      ([generic, family]) =>
        `  <alias><family>${generic}</family><prefer><family>${family}</family></prefer></alias>`,
    ),
    '</fontconfig>',
    '',
  ].join('\n');
  writeFileSync(file, text);
  return file;
}

const probeMark = 'holdfast-probe';
const probeTimeoutMs = 30_000;

/**
 * Its version is no proof: a browser without its sandbox's rights, or with a library missing, dies at the first page.
 * With the sandbox where that works, without it otherwise (as root it never does).
 */
async function thatRuns(path: string, env: Readonly<Record<string, string>>): Promise<Chromium | undefined> {
  const version = /(\d+(?:\.\d+)+)/.exec((await runCommand(path, ['--version'], { env })).stdout)?.[1];
  if (version === undefined) return undefined;
  const page = `data:text/html,<p>${probeMark}</p>`;
  for (const args of process.getuid?.() === 0 ? [['--no-sandbox']] : [[], ['--no-sandbox']]) {
    const ran = await runCommand(
      path,
      [...args, '--headless', '--disable-gpu', '--disable-dev-shm-usage', '--dump-dom', page],
      { env, timeoutMs: probeTimeoutMs },
    );
    if (ran.stdout.includes(`<p>${probeMark}</p>`))
      return { path, env, args: [...args, '--disable-dev-shm-usage'], version };
  }
  return undefined;
}
