/**
 * Debian and Ubuntu packages, fetched and checked by apt's own tools and unpacked into a folder of ours. Nothing on
 * the machine changes: apt gets private state and cache folders, reads the real list of installed packages (so that
 * only what is missing comes along) and is never asked to install.
 *
 *   <cache>/<name>/root             what the packages hold
 *   <cache>/<name>/manifest.json    for which release it was unpacked, and from which packages
 *   <cache>/fetch-<pid>-…/          while at work
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  type AptSource,
  type Distribution,
  formatDeb822,
  newerSuites,
  parseDeb822,
  parseOneLine,
  parseOsRelease,
} from './apt-sources.ts';
import { compareVersions } from './binaries.ts';
import { withFolderLock } from './folder-lock.ts';
import { runCommand } from './run-command.ts';

export interface PackageSet {
  /** Folder below the cache. */
  readonly name: string;
  /** The first one's version decides whether a suite will do. `env` makes apt's tools look into that suite. */
  packages(env: Readonly<Record<string, string>>): Promise<readonly string[]>;
  /** Upstream version; any will do without it. */
  readonly oldest?: string;
  /** Whether the programs in this root really run here. A reason why not, or undefined. */
  check(root: string): Promise<string | undefined>;
}

export type Unpacked = { readonly root: string } | { readonly reason: string };

const updateTimeoutMs = 5 * 60_000;
const downloadTimeoutMs = 20 * 60_000;

/** Unpacks each set, or finds it unpacked; the outcomes come in the order of the sets. */
export async function unpackPackages(
  sets: readonly PackageSet[],
  cacheDirectory: string,
  report: (line: string) => void,
): Promise<Unpacked[]> {
  const machine = await aptMachine();
  if ('reason' in machine) return sets.map(() => machine);
  const outcomes: (Unpacked | undefined)[] = [];
  for (const set of sets) outcomes.push(await alreadyThere(set, cacheDirectory, machine));
  if (outcomes.every(outcome => outcome !== undefined)) return outcomes;

  const waiting = (pid: number) => report(`process ${pid} is fetching packages; waiting for it`);
  return withFolderLock(cacheDirectory, waiting, async () => {
    removeLeftovers(cacheDirectory);
    const suites = aptSuites(machine, cacheDirectory, report);
    try {
      const results: Unpacked[] = [];
      for (const set of sets) {
        const there = await alreadyThere(set, cacheDirectory, machine);
        results.push(there ?? (await unpackSet(set, cacheDirectory, machine, suites, report)));
      }
      return results;
    } finally {
      suites.clear();
    }
  });
}

interface AptMachine {
  readonly distribution: Distribution;
  readonly architecture: string;
  readonly sources: readonly AptSource[];
}

async function aptMachine(): Promise<AptMachine | { reason: string }> {
  const distribution = parseOsRelease(readText('/etc/os-release') ?? '');
  if (!distribution) return { reason: 'this is not a Debian or Ubuntu system' };
  const architecture = await runCommand('dpkg', ['--print-architecture']);
  const apt = await runCommand('apt-get', ['--version']);
  if (architecture.code !== 0 || apt.code !== 0) return { reason: 'apt-get or dpkg is missing' };
  const sources = parseOneLine(readText('/etc/apt/sources.list') ?? '');
  const parts = '/etc/apt/sources.list.d';
  for (const name of existsSync(parts) ? readdirSync(parts).sort() : []) {
    const text = readText(join(parts, name)) ?? '';
    if (name.endsWith('.sources')) sources.push(...parseDeb822(text));
    if (name.endsWith('.list')) sources.push(...parseOneLine(text));
  }
  if (sources.length === 0) return { reason: 'apt has no package sources configured' };
  return { distribution, architecture: architecture.stdout.trim(), sources };
}

async function alreadyThere(
  set: PackageSet,
  cache: string,
  machine: AptMachine,
): Promise<Unpacked | undefined> {
  const folder = join(cache, set.name);
  const manifest = readText(join(folder, 'manifest.json'));
  if (manifest === undefined) return undefined;
  try {
    const { release, architecture } = JSON.parse(manifest) as { release?: unknown; architecture?: unknown };
    if (release !== machine.distribution.release || architecture !== machine.architecture) return undefined;
  } catch {
    return undefined;
  }
  const root = join(folder, 'root');
  return (await set.check(root)) === undefined ? { root } : undefined;
}

async function unpackSet(
  set: PackageSet,
  cache: string,
  machine: AptMachine,
  suites: Suites,
  report: (line: string) => void,
): Promise<Unpacked> {
  const reasons: string[] = [];
  for (const [at, name] of suites.names.entries()) {
    const suite = await suites.open(at);
    const unpacked = 'reason' in suite ? suite : await unpackFrom(suite, set, cache, machine, report);
    if ('root' in unpacked) return unpacked;
    reasons.push(`${name}: ${unpacked.reason}`);
  }
  return { reason: reasons.join('; ') };
}

async function unpackFrom(
  suite: Suite,
  set: PackageSet,
  cache: string,
  machine: AptMachine,
  report: (line: string) => void,
): Promise<Unpacked> {
  const packages = await set.packages(suite.env);
  const main = packages[0] ?? '';
  const policy = await runCommand('apt-cache', ['policy', main], { env: suite.env });
  const candidate = /Candidate: (\S+)/.exec(policy.stdout)?.[1];
  if (candidate === undefined || candidate === '(none)') return { reason: `no package ${main}` };
  const upstream = candidate.replace(/^\d+:/, '').replace(/-[^-]*$/, '');
  if (set.oldest !== undefined && compareVersions(upstream, set.oldest) < 0) {
    return { reason: `${main} is ${upstream}, older than ${set.oldest}` };
  }

  report(`fetching ${packages.join(', ')} (${main} ${upstream}) from ${suite.name}`);
  const archives = join(suite.folder, 'archives');
  rmSync(archives, { recursive: true, force: true });
  mkdirSync(join(archives, 'partial'), { recursive: true });
  const download = await runCommand(
    'apt-get',
    [
      // Reinstall: what the machine has installed and cannot run is fetched as well.
      ...[
        'install',
        '--download-only',
        '--reinstall',
        '--yes',
        '--no-install-recommends',
        '--allow-downgrades',
      ],
      ...packages,
    ],
    { env: suite.env, timeoutMs: downloadTimeoutMs },
  );
  if (download.code !== 0) return { reason: lastLines(download.said) };
  const files = readdirSync(archives).filter(name => name.endsWith('.deb'));
  // Another C library beside the machine's own loader would bring down everything that uses it.
  if (files.some(name => /^libc6_/.test(name))) return { reason: `${main} needs a newer C library` };
  if (files.length === 0) return { reason: `${main} cannot be downloaded` };

  const draft = join(cache, `fetch-${process.pid}-${set.name}`);
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(join(draft, 'root'), { recursive: true });
  for (const file of files) {
    const unpack = await runCommand('dpkg-deb', ['--extract', join(archives, file), join(draft, 'root')], {
      timeoutMs: downloadTimeoutMs,
    });
    if (unpack.code !== 0) return { reason: lastLines(unpack.said) };
  }
  chmodSync(draft, 0o755);
  const unfit = await set.check(join(draft, 'root'));
  if (unfit !== undefined) {
    rmSync(draft, { recursive: true, force: true });
    return { reason: unfit };
  }
  const manifest = {
    release: machine.distribution.release,
    architecture: machine.architecture,
    suite: suite.name,
    packages: files.map(name => decodeURIComponent(name)).sort(),
  };
  writeFileSync(join(draft, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  const place = join(cache, set.name);
  rmSync(place, { recursive: true, force: true });
  renameSync(draft, place);
  rmSync(archives, { recursive: true, force: true });
  return { root: join(place, 'root') };
}

interface Suite {
  readonly name: string;
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
}

interface Suites {
  readonly names: readonly string[];
  open(at: number): Promise<Suite | { reason: string }>;
  clear(): void;
}

/** The configured suites together, then the newer ones of the distribution, each updated when first needed. */
function aptSuites(machine: AptMachine, cache: string, report: (line: string) => void): Suites {
  const lists = [
    { name: 'the configured package sources', sources: machine.sources },
    ...newerSuites(machine.sources, machine.distribution).map(source => ({
      name: source.suites.join(' '),
      sources: [source],
    })),
  ];
  const opened = new Map<number, Suite | { reason: string }>();

  async function update(
    name: string,
    sources: readonly AptSource[],
    folder: string,
  ): Promise<Suite | { reason: string }> {
    report(`reading the package lists of ${name}`);
    mkdirSync(join(folder, 'state', 'lists', 'partial'), { recursive: true });
    mkdirSync(join(folder, 'archives', 'partial'), { recursive: true });
    writeFileSync(join(folder, 'list.sources'), formatDeb822(sources));
    writeFileSync(join(folder, 'apt.conf'), await aptConfiguration(folder));
    const env = { APT_CONFIG: join(folder, 'apt.conf'), DEBIAN_FRONTEND: 'noninteractive' };
    const ran = await runCommand('apt-get', ['update'], { env, timeoutMs: updateTimeoutMs });
    // One source of several may fail; what the others brought is used.
    const some = readdirSync(join(folder, 'state', 'lists')).some(file => file.includes('_Packages'));
    return some ? { name, folder, env } : { reason: lastLines(ran.said) };
  }

  return {
    names: lists.map(list => list.name),
    open: async at => {
      const list = lists[at];
      if (!list) throw new RangeError(`no suite ${at}`);
      const folder = join(cache, `fetch-${process.pid}-suite-${at}`);
      const suite = opened.get(at) ?? (await update(list.name, list.sources, folder));
      opened.set(at, suite);
      return suite;
    },
    clear: () => {
      for (const suite of opened.values()) {
        if ('folder' in suite) rmSync(suite.folder, { recursive: true, force: true });
      }
    },
  };
}

/**
 * Private folders in place of the system's. Of the machine's own configuration the way to the network is kept
 * (proxies, certificates, credentials); its hooks are not ours to run.
 */
async function aptConfiguration(folder: string): Promise<string> {
  const dump = await runCommand('apt-config', ['dump']);
  const network = dump.stdout
    .split('\n')
    .filter(
      line => /^Acquire::/.test(line) && !/^Acquire::(IndexTargets|Languages|GzipIndexes)\b/.test(line),
    );
  return [
    ...network,
    'Acquire::Languages "none";',
    'Acquire::GzipIndexes "true";',
    'Acquire::Retries "2";',
    `Dir::State "${join(folder, 'state')}/";`,
    'Dir::State::status "/var/lib/dpkg/status";',
    `Dir::Cache "${folder}/";`,
    `Dir::Cache::archives "${join(folder, 'archives')}/";`,
    `Dir::Etc::sourcelist "${join(folder, 'list.sources')}";`,
    ...['main', 'parts', 'sourceparts', 'preferences', 'preferencesparts'].map(
      name => `Dir::Etc::${name} "/dev/null";`,
    ),
    // Only the folders above are written, and they are ours alone.
    'Debug::NoLocking "true";',
    // As root apt would download as a user who cannot reach them.
    'APT::Sandbox::User "root";',
    '',
  ].join('\n');
}

function removeLeftovers(cache: string): void {
  for (const name of readdirSync(cache)) {
    if (name.startsWith('fetch-')) rmSync(join(cache, name), { recursive: true, force: true });
  }
}

function lastLines(text: string): string {
  const lines = text.split('\n').filter(line => /^(E:|W:|dpkg)/.test(line));
  return (lines.length > 0 ? lines : text.split('\n')).slice(-3).join(' ').trim();
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** For programs unpacked at `root`: where their libraries are. */
export function libraryPath(root: string): string {
  const folders: string[] = [];
  for (const base of ['usr/lib', 'lib']) {
    for (const name of ['', ...(existsSync(join(root, base)) ? readdirSync(join(root, base)) : [])]) {
      const folder = join(root, base, name);
      // The C library's folder for this architecture, named like x86_64-linux-gnu.
      if (name !== '' && !name.endsWith('-linux-gnu') && !name.includes('-linux-gnu')) continue;
      if (!existsSync(folder)) continue;
      const entries = readdirSync(folder, { withFileTypes: true });
      if (entries.some(entry => /\.so(\.|$)/.test(entry.name))) folders.push(folder);
      for (const entry of name === '' ? [] : entries) {
        const below = join(folder, entry.name);
        if (entry.isDirectory() && readdirSync(below).some(file => /^lib.*\.so(\.|$)/.test(file)))
          folders.push(below);
      }
    }
  }
  return folders.join(':');
}
