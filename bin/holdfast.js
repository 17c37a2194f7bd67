#!/usr/bin/env node
/**
 * The way in, on any Node from 20: sees to the locked dependencies and to Node 22 (which runs TypeScript as it is),
 * then hands over to the command. Plain JavaScript without dependencies, because nothing is installed yet.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const commands = {
  start: { entry: 'deploy/demo/main.ts', does: 'runs everything on this machine, with a simulated fleet' },
  test: { entry: 'test/run.ts', does: 'runs the tests' },
  bench: { entry: 'test/bench/main.ts', does: 'measures' },
  cloud: { entry: 'cloud/main.ts', does: 'runs a cloud node' },
  lab: {
    entry: 'deploy/lab/main.ts',
    does: 'lets everything go wrong at a site, and counts what became of each message',
  },
  chaos: {
    entry: 'deploy/chaos/main.ts',
    does: 'lets everything go wrong with a cluster, and compares it with what devices said',
  },
  edge: {
    entry: 'edge-gateway/command.ts',
    does: 'what can be done on the box itself: status, export, try-mapping',
  },
  import: {
    entry: 'cloud/import/command.ts',
    does: 'takes what gateways exported onto a stick into history',
  },
  devices: {
    entry: 'cloud/commands/devices-command.ts',
    does: 'lists devices of the registry; replaces, renames, retires them',
  },
  maintenance: {
    entry: 'cloud/commands/maintenance-command.ts',
    does: 'keeps a site from paging anybody for a while',
  },
  quarantine: {
    entry: 'cloud/commands/quarantine-command.ts',
    does: 'messages that could not be used: shows, replays, discards them',
  },
  incidents: {
    entry: 'cloud/commands/incidents-command.ts',
    does: 'lists incidents; acknowledges and clears them',
  },
  rules: {
    entry: 'cloud/commands/rules-command.ts',
    does: 'alert rules: lists, changes, and tries them on history',
  },
  history: {
    entry: 'cloud/commands/history-command.ts',
    does: 'writes readings to a file; tells how much room history takes; moves it to TimescaleDB',
  },
  backup: {
    entry: 'cloud/commands/backup-command.ts',
    does: 'notes what a dump of the database has, so that gateways may give it back',
  },
  channels: {
    entry: 'cloud/commands/channels-command.ts',
    does: 'who is told of incidents: webhooks and NATS subjects',
  },
  keys: { entry: 'cloud/import/keys-command.ts', does: "makes the key pair of the cloud's import" },
};

const project = fileURLToPath(new URL('..', import.meta.url));
const modules = join(project, 'node_modules');

function main() {
  const [major = 0] = process.versions.node.split('.').map(Number);
  if (major < 20) fail(`Holdfast needs Node 20 or newer; this is ${process.version}.`);
  const [name = '', ...args] = process.argv.slice(2);
  if (!Object.hasOwn(commands, name)) {
    const lines = Object.entries(commands).map(([command, { does }]) => `  ${command.padEnd(13)}${does}`);
    const asked = name === '' || name === 'help' || name === '--help';
    fail(`${asked ? 'holdfast <command> [options]' : `There is no command ${name}.`}\n${lines.join('\n')}`);
  }
  installDependencies();
  run(node22(), [join(project, commands[name].entry), ...args]);
}

/** `npm ci` when what is installed is not what the lock file says. */
function installDependencies() {
  const lock = readFileSync(join(project, 'package-lock.json'));
  const hash = createHash('sha256').update(lock).digest('hex');
  const record = join(modules, '.holdfast-lock');
  if (textOf(record) === hash) return;
  if (!isInstalled(JSON.parse(lock.toString('utf8')))) {
    say('Installing the locked dependencies (npm ci) ...');
    npm(
      ['ci', '--include=dev'],
      'Installing the dependencies failed; npm said the above. Check the network or proxy, then try again.',
    );
  }
  writeFileSync(record, hash);
}

/** Whether npm's own record of node_modules agrees with the lock file, so that a person's own `npm ci` counts. */
function isInstalled(lock) {
  const installed = textOf(join(modules, '.package-lock.json'));
  if (installed === undefined) return false;
  const there = JSON.parse(installed).packages;
  return Object.entries(lock.packages).every(([path, wanted]) => {
    const found = there[path];
    // The project itself is not in npm's record; optional packages for other platforms are absent.
    if (path === '' || (found === undefined && wanted.optional)) return true;
    return (
      found?.version === wanted.version &&
      found?.integrity === wanted.integrity &&
      existsSync(join(project, path))
    );
  });
}

/** This very Node where it will do: the web server's binary module exists for Node 22 alone. */
function node22() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major === 22 && minor >= 18) return process.execPath;
  const bundled = join(modules, 'node', 'bin', 'node');
  if (!runs(bundled)) {
    say("Fetching Node 22 (npm's settings skipped it, or it is for another machine) ...");
    const trouble =
      'Fetching Node 22 failed; npm said the above. Check the network or proxy and try again, or install Node 22.18 or newer and run this with it.';
    npm(['rebuild', 'node', '--ignore-scripts=false'], trouble);
    // A policy on scripts may make npm skip it without an error: run what the package itself would run.
    if (!runs(bundled))
      attempt(process.execPath, ['installArchSpecificPackage'], join(modules, 'node'), trouble);
    if (!runs(bundled)) fail(trouble.replace('; npm said the above', ''));
  }
  return bundled;
}

function runs(node) {
  try {
    accessSync(node, constants.X_OK);
  } catch {
    return false;
  }
  return spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout?.startsWith('v22.') ?? false;
}

function npm(args, trouble) {
  const running = process.env.npm_execpath ?? '';
  if (running.endsWith('npm-cli.js')) attempt(process.execPath, [running, ...args], project, trouble);
  else attempt('npm', args, project, trouble);
}

/** Runs it quietly; on failure shows what it said and ends with what to do. */
function attempt(command, args, cwd, trouble) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (status === 0) return;
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}${error ? `${error.message}\n` : ''}`);
  fail(trouble);
}

/** A signal of one kind that comes again within this time is the same one, passed on by npm as well. */
const sameSignalMs = 500;

/**
 * Runs the command to its end and ends as it did. It has its own process group, so Ctrl-C in a terminal reaches this
 * process alone, and the command hears each signal once, from here. By the IPC channel it hears of our end too, when
 * that was SIGKILL.
 */
function run(node, args) {
  const child = spawn(node, args, { stdio: ['inherit', 'inherit', 'inherit', 'ipc'], detached: true });
  const lastAt = new Map();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      const now = performance.now();
      const again = now - (lastAt.get(signal) ?? Number.NEGATIVE_INFINITY) < sameSignalMs;
      lastAt.set(signal, now);
      // A terminal that closed is no reason not to drain.
      if (!again) child.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal);
    });
  }
  child.on('error', error => fail(`${node} could not be started: ${error.message}`));
  child.on('exit', (code, signal) => {
    process.exitCode = signal === null ? code : 128 + osConstants.signals[signal];
    process.exit();
  });
}

function textOf(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function say(line) {
  process.stderr.write(`${line}\n`);
}

function fail(message) {
  say(message);
  process.exit(1);
}

main();
