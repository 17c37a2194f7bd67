/** The unit as it is shipped, and a gateway process under something that listens where systemd would. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openDiskBuffer } from '../../edge-gateway/log/disk-buffer.ts';
import { nodeFiles } from '../../edge-gateway/log/files.ts';
import { examine, NEWBORN, type Signs } from '../../edge-gateway/vitals.ts';
import { message, silent } from './log/support.ts';

const project = fileURLToPath(new URL('../..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'holdfast-systemd-'));
const started: ChildProcess[] = [];
after(() => {
  for (const child of started) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

/** Node has no datagram sockets of the Unix kind either; perl is on every Debian. */
const LISTENER = `use Socket; $| = 1;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; bind($s, sockaddr_un($ARGV[0])) or die; print "listening\\n";
while (defined recv($s, my $words, 4096, 0)) { $words =~ s/\\n/ | /g; print "$words\\n"; }`;

const runs = (program: string, ...args: string[]) => {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};
const missing = [
  !runs('systemd-notify', '--version') && 'systemd-notify',
  !runs('perl', '-MSocket', '-e', '1') && 'perl',
].filter(name => name !== false);

test('the unit is right in the eyes of systemd', {
  skip: !runs('systemd-analyze', '--version') && 'there is no systemd-analyze here',
}, () => {
  const unit = readFileSync(join(project, 'deploy/edge/holdfast-edge@.service'), 'utf8');
  const here = unit
    .replaceAll('/opt/holdfast/node_modules/node/bin/node', process.execPath)
    .replaceAll('/opt/holdfast', project.replace(/\/$/, ''))
    .replaceAll('User=holdfast', 'User=root')
    .replaceAll('Group=holdfast', 'Group=root');
  const file = join(directory, 'holdfast-edge@gw-1.service');
  writeFileSync(file, here);
  const { SYSTEMD_UNIT_PATH: _, ...env } = process.env;
  const { stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', file], {
    encoding: 'utf8',
    env: { ...env, SYSTEMD_UNIT_PATH: `${directory}:` },
  });
  assert.equal((stdout + stderr).trim(), '');
});

test('a gateway says that it is ready, that it lives without any link, and that it stops', {
  skip: missing.length > 0 && `there is no ${missing.join(', no ')} here`,
  timeout: 30_000,
}, async () => {
  const socket = join(directory, 'notify.sock');
  const listener = spawn('perl', ['-e', LISTENER, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  started.push(listener);
  const words: string[] = [];
  const lines = createInterface({ input: listener.stdout });
  const heard = (wanted: string) =>
    new Promise<string>(resolve => {
      const look = () => {
        const found = words.find(line => line.includes(wanted));
        if (found === undefined) return;
        lines.off('line', look);
        resolve(found);
      };
      lines.on('line', look);
      look();
    });
  lines.on('line', line => words.push(line));
  await heard('listening');

  const data = join(directory, 'data');
  mkdirSync(data);
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const gateway = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', 'edge-gateway/main.ts'], {
    cwd: project,
    env: {
      ...env,
      HOLDFAST_SITE: 'demo',
      HOLDFAST_GATEWAY: 'gw-1',
      // Nobody listens on either.
      HOLDFAST_MQTT_URL: 'mqtt://127.0.0.1:9',
      HOLDFAST_NATS_URL: 'nats://127.0.0.1:9',
      HOLDFAST_DATA_DIR: data,
      HOLDFAST_LOG_LEVEL: 'fatal',
      NOTIFY_SOCKET: socket,
      WATCHDOG_USEC: '1500000',
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  started.push(gateway);
  const exited = once(gateway, 'exit');
  assert.match(await heard('READY=1'), /STATUS=/);
  assert.match(await heard('WATCHDOG=1'), /STATUS=.*not connected|STATUS=.*broker/i);
  gateway.kill('SIGTERM');
  await heard('STOPPING=1');
  assert.deepEqual(await exited, [0, null]);
});

const alive: Signs = { at: 0, messagesPending: 0, diskAnswers: 0, uplinkTurnAt: 0 };
const PATIENCE_MS = 1000;

/** @returns what is stuck after each of the signs */
function examined(signs: readonly Partial<Signs>[]): (string | null)[] {
  let vitals = NEWBORN;
  return signs.map(sign => {
    const at = sign.at ?? 0;
    vitals = examine(vitals, { ...alive, uplinkTurnAt: at, ...sign }, PATIENCE_MS);
    return vitals.stuck;
  });
}

test('a disk that gives no answer while messages wait is stuck; one that refuses or has nothing to do is not', () => {
  const hung = [0, 500, 999, 1000, 5000].map(at => ({ at, messagesPending: 7, diskAnswers: 3 }));
  // The first look only learns where the count of answers stands.
  assert.deepEqual(examined(hung), [null, null, null, null, 'the disk does not answer']);
  assert.deepEqual(examined([...hung, { at: 6000, messagesPending: 7, diskAnswers: 4 }]).at(-1), null);
  const refusing = [0, 900, 1800, 2700].map((at, i) => ({ at, messagesPending: 7, diskAnswers: i }));
  assert.ok(examined(refusing).every(stuck => stuck === null));
  const resting = [0, 900, 1800, 90_000].map(at => ({ at, diskAnswers: 3 }));
  assert.ok(examined(resting).every(stuck => stuck === null));
});

test('an uplink that takes no turn is stuck', () => {
  const hung = [0, 999, 1000].map(at => ({ at, uplinkTurnAt: 0 }));
  assert.deepEqual(examined(hung), [null, null, 'the uplink takes no turn']);
});

test('a disk buffer whose fdatasync hangs shows exactly that', { timeout: 10_000 }, async () => {
  let syncing = () => {};
  const hangs = new Promise<void>(resolve => {
    syncing = resolve;
  });
  const opened = await openDiskBuffer({
    directory: join(directory, 'hanging'),
    bytesMax: 64 * 1024 * 1024,
    bootId: 'test',
    logger: silent,
    files: {
      ...nodeFiles,
      create: async path => ({
        ...(await nodeFiles.create(path)),
        datasync() {
          syncing();
          return new Promise(() => {});
        },
      }),
    },
  });
  assert.ok(opened.outcome === 'open');
  const { buffer } = opened;
  buffer.append(message(1), () => assert.fail('it is not durable'));
  await hangs;
  const { messagesPending, fsyncs, writeErrors } = buffer.stats();
  const signs = { messagesPending, diskAnswers: fsyncs + writeErrors };
  assert.deepEqual(signs, { messagesPending: 1, diskAnswers: 0 });
  assert.equal(examined([0, 500, 1000].map(at => ({ at, ...signs }))).at(-1), 'the disk does not answer');
});
