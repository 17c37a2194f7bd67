/**
 * A site without a link: what its gateway holds goes onto a stick, beside the running gateway and after kill -9, and into
 * history by the import, exactly once; again, and after the link is back, nothing changes (A, B, R, S).
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { withUser } from '../../deploy/local/stack.ts';
import { assertExact, checkAll, checkLedger, countHistory } from './checker.ts';
import { type Publisher, startPublisher } from './publisher.ts';
import { lastWords, openScene, type Scene, until } from './scene.ts';

const SITE = 'demo';
const GATEWAY = 'gw-1';
const project = fileURLToPath(new URL('../..', import.meta.url));

let scene: Scene;
let link: Link;
let publisher: Publisher;
let recipient: string;

before(async () => {
  scene = await openScene({
    sites: { [SITE]: [GATEWAY] },
    async gatewayNatsUrl(url) {
      const through = new URL(url);
      link = await openLink({ host: through.hostname, port: Number(through.port) });
      through.port = String(link.port);
      return through.toString();
    },
  });
  link.cut();
  const made = await holdfast(['keys', 'new', '--for', 'cloud-import', '--out', at('import.key')]);
  recipient = made.stdout.trim();
  const shown = await holdfast(['edge', 'export', '--show-key'], gatewayEnv());
  writeFileSync(at('trusted'), shown.stdout);
  publisher = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix: 'cut-off',
    devices: 20,
    messagesPerSecond: 2000,
  });
});
after(async () => {
  await publisher?.stop();
  await scene?.close();
  await link?.close();
});

const at = (name: string): string => join(scene.directory, name);

function gatewayEnv(): Record<string, string> {
  return {
    HOLDFAST_SITE: SITE,
    HOLDFAST_GATEWAY: GATEWAY,
    HOLDFAST_DATA_DIR: at(`gateways/${SITE}/${GATEWAY}`),
    HOLDFAST_EXPORT_RECIPIENT: recipient ?? '',
  };
}

function cloudEnv(): Record<string, string> {
  const config = JSON.parse(readFileSync(at('nats/nats-server.json'), 'utf8')) as {
    authorization: { users: { user: string; password: string }[] };
  };
  const user = config.authorization.users.find(entry => entry.user === 'import')!;
  return {
    HOLDFAST_NATS_URL: withUser(scene.stack.nats.url, user),
    HOLDFAST_POSTGRES_URL: scene.stack.postgres.url,
    HOLDFAST_IMPORT_IDENTITY: at('import.key'),
    HOLDFAST_IMPORT_TRUST: at('trusted'),
  };
}

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function holdfast(args: readonly string[], env: Record<string, string> = {}): Promise<Ran> {
  return new Promise(resolve => {
    execFile(
      process.execPath,
      [join(project, 'bin/holdfast.js'), ...args],
      { env: { ...process.env, ...env }, timeout: 60_000 },
      (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

interface ExportSummary {
  readonly messages: number;
  readonly files: readonly { readonly file: string }[];
}

async function exportTo(stick: string): Promise<ExportSummary> {
  mkdirSync(at(stick), { recursive: true });
  const ran = await holdfast(['edge', 'export', at(stick), '--json'], gatewayEnv());
  assert.equal(ran.code, 0, ran.stderr);
  return JSON.parse(ran.stdout) as ExportSummary;
}

interface ImportSummary {
  readonly messages: number;
  readonly fresh: number;
  readonly already: number;
  readonly refused: number;
  readonly stopped: string | null;
}

async function importFrom(stick: string, ...more: string[]): Promise<ImportSummary & { code: number }> {
  const { code, stdout, stderr } = await holdfast(['import', at(stick), '--json', ...more], cloudEnv());
  assert.notEqual(stdout, '', stderr);
  return { ...(JSON.parse(stdout) as ImportSummary), code };
}

const figures = ({ messages, fresh, already, refused, code }: ImportSummary & { code: number }) => ({
  messages,
  fresh,
  already,
  refused,
  code,
});

test('an export beside the running gateway holds all that was acknowledged until then (A)', async () => {
  await publisher.reached(2000);
  const acknowledged = publisher.acknowledged;
  const { messages } = await exportTo('stick-1');
  assert.ok(messages >= acknowledged, `${messages} of ${acknowledged}`);
});

test('an export after kill -9 of the gateway holds all of it (A)', async () => {
  await publisher.reached(publisher.acknowledged + 2000);
  await publisher.finish();
  await until('the gateway has taken all of it', 10_000, () => {
    return exportTo('counting').then(({ messages }) => messages >= publisher.acknowledged);
  });
  await scene.stack.gateways.get(`${SITE}/${GATEWAY}`)!.kill();
  const { messages } = await exportTo('stick-2');
  assert.equal(messages, publisher.acknowledged);
});

test('a file that was tampered with is refused, and nothing of it gets into history (I)', async () => {
  mkdirSync(at('tampered'));
  const { files } = await exportTo('stick-2b');
  const bytes = readFileSync(files[0]!.file);
  bytes[bytes.length >> 1]! ^= 1;
  writeFileSync(at('tampered/one.holdfast'), bytes);
  const { code, refused, fresh } = await importFrom('tampered');
  assert.deepEqual({ code, refused, fresh }, { code: 1, refused: 1, fresh: 0 });
  assert.equal((await countHistory(scene, SITE, publisher.journal)).stored, 0);
});

test('the import brings the sticks into history, exactly once, and says how much was new (A, B)', async () => {
  try {
    const first = await importFrom('stick-1');
    assert.deepEqual(figures(first), { ...figures(first), fresh: first.messages, already: 0, code: 0 });
    const second = await importFrom('stick-2');
    assert.deepEqual(figures(second), {
      messages: publisher.acknowledged,
      fresh: publisher.acknowledged - first.messages,
      already: first.messages,
      refused: 0,
      code: 0,
    });
    const count = await countHistory(scene, SITE, publisher.journal);
    assertExact(count, 'after the import');
    assert.equal(count.stored, publisher.acknowledged);
  } catch (error) {
    console.log(lastWords(scene));
    throw error;
  }
});

test('importing again changes nothing (B)', async () => {
  const again = await importFrom('stick-2');
  assert.deepEqual(figures(again), { ...figures(again), fresh: 0, already: again.messages, code: 0 });
  assertExact(await countHistory(scene, SITE, publisher.journal), 'after the second import');
});

test('when the link is back nothing changes either, and the buffer becomes settled (B, R)', async () => {
  try {
    link.heal();
    await scene.stack.gateways.get(`${SITE}/${GATEWAY}`)!.start();
    await checkLedger(scene, SITE);
    await checkAll(scene, SITE, publisher.journal, 'link healed');
    // It notes what is settled when it ends.
    const gateway = scene.stack.gateways.get(`${SITE}/${GATEWAY}`)!;
    await gateway.stop();
    assert.equal((await exportTo('stick-3')).messages, 0);
    await gateway.start();
  } catch (error) {
    console.log(lastWords(scene));
    throw error;
  }
});

test('an import while the cloud is away waits, and goes on when it is back (R)', async () => {
  link.cut();
  const more = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix: 'later',
    devices: 5,
    messagesPerSecond: 1000,
  });
  try {
    await more.reached(1000);
    await more.finish();
    await until('the gateway has taken all of it', 10_000, async () => {
      return (await exportTo('stick-4')).messages >= more.acknowledged;
    });
    renameSync(at('stick-4'), at('stick-away'));
    await scene.stack.cloud.kill();
    const gaveUp = await importFrom('stick-away', '--wait', '1');
    assert.equal(gaveUp.code, 1);
    assert.match(gaveUp.stopped ?? '', /Import the same files again/);

    const waiting = spawn(
      process.execPath,
      [join(project, 'bin/holdfast.js'), 'import', at('stick-away'), '--json'],
      { env: { ...process.env, ...cloudEnv() } },
    );
    let output = '';
    let trouble = '';
    waiting.stdout.on('data', chunk => {
      output += chunk;
    });
    waiting.stderr.on('data', chunk => {
      trouble += chunk;
    });
    const ended = new Promise<number | null>(resolve => waiting.once('close', resolve));
    await until('it says that it waits', 30_000, () => trouble.includes('still waiting'));
    await scene.stack.startCloud();
    assert.equal(await ended, 0, trouble);
    const { refused, stopped } = JSON.parse(output) as ImportSummary;
    assert.deepEqual({ refused, stopped }, { refused: 0, stopped: null });
    assertExact(await countHistory(scene, SITE, more.journal), 'after the cloud came back');
    link.heal();
    await checkLedger(scene, SITE);
    await checkAll(scene, SITE, more.journal, 'link healed again');
  } catch (error) {
    console.log(lastWords(scene));
    throw error;
  } finally {
    await more.stop();
  }
});
