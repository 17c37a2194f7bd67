/**
 * The box's broker as it is shipped (deploy/edge/mosquitto.conf and .acl), with the real Mosquitto and certificates made
 * here: who gets in, who may write and read what (S), and that it comes back with what it had.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt';
import { binary } from '../../deploy/local/binaries.ts';
import { commandLine } from '../../deploy/local/command-line.ts';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { launchServer } from '../../deploy/local/process.ts';
import { mosquittoPasswordLine } from '../../deploy/local/secrets.ts';
import { freePort, type Server } from '../../deploy/local/servers.ts';

const PASSWORDS = { gateway: 'for-the-gateway', pump: 'for-the-pump', valve: 'for-the-valve' } as const;
type User = keyof typeof PASSWORDS;
const NOT_AUTHORISED = /not authori[sz]ed/i;

const directory = mkdtempSync(join(tmpdir(), 'holdfast-broker-'));
const hasOpenssl = (() => {
  try {
    execFileSync('openssl', ['version']);
    return true;
  } catch {
    return false;
  }
})();
const skip = hasOpenssl ? false : 'there is no openssl here to make certificates with';
let broker: Server | undefined;
let tlsPort = 0;
let ca: Buffer;
const clients: MqttClient[] = [];

before(async () => {
  if (!hasOpenssl) return;
  makeCertificates();
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => process.stderr.write(`${line}\n`),
    need: ['mosquitto'],
    places: ['machine', 'packages', 'root'],
  });
  const plainPort = await freePort();
  tlsPort = await freePort();
  const data = join(directory, 'data');
  mkdirSync(data);
  const lines = Object.entries(PASSWORDS).map(([user, password]) => mosquittoPasswordLine(user, password));
  writeFileSync(join(directory, 'passwords'), `${lines.join('\n')}\n`, { mode: 0o600 });
  const shipped = (name: string) =>
    readFileSync(new URL(`../../deploy/edge/${name}`, import.meta.url), 'utf8');
  writeFileSync(join(directory, 'acl'), shipped('mosquitto.acl'), { mode: 0o600 });
  const replacements: [string, string][] = [
    ['/etc/mosquitto/holdfast.passwords', join(directory, 'passwords')],
    ['/etc/mosquitto/holdfast.acl', join(directory, 'acl')],
    ['/etc/mosquitto/certs/broker', join(directory, 'broker')],
    ['/var/lib/mosquitto/', `${data}/`],
    ['listener 1883 127.0.0.1', `listener ${plainPort} 127.0.0.1`],
    ['listener 8883', `listener ${tlsPort} 127.0.0.1`],
    ['log_dest syslog', 'log_dest stderr'],
  ];
  let config = shipped('mosquitto.conf');
  for (const [is, here] of replacements) {
    assert.ok(config.includes(is), `the shipped configuration names ${is}`);
    config = config.replaceAll(is, here);
  }
  // Started as root it would become the user mosquitto, who cannot read this folder.
  if (process.getuid?.() === 0) config += 'user root\n';
  const configFile = join(directory, 'mosquitto.conf');
  writeFileSync(configFile, config);
  broker = await launchServer({
    ...commandLine({
      binary: binary(binaries, 'mosquitto'),
      name: 'mosquitto',
      args: ['-c', configFile],
      directory,
      publish: { host: '127.0.0.1', port: plainPort },
    }),
    name: 'mosquitto',
    host: '127.0.0.1',
    port: plainPort,
    url: `mqtt://gateway:${PASSWORDS.gateway}@127.0.0.1:${plainPort}`,
    directory,
    stopSignal: 'SIGTERM',
    stopTimeoutMs: 15_000,
    readyTimeoutMs: 20_000,
    answers: async () => {
      const probe = mqtt.connect(`mqtt://127.0.0.1:${plainPort}`, {
        username: 'valve',
        password: PASSWORDS.valve,
        reconnectPeriod: 0,
      });
      const up = await new Promise<boolean>(resolve => {
        probe.on('connect', () => resolve(true));
        probe.on('error', () => resolve(false));
        probe.on('close', () => resolve(false));
      });
      await probe.endAsync(true);
      return up;
    },
  });
});
after(async () => {
  await Promise.all(clients.map(client => client.endAsync(true)));
  await broker?.stop();
  rmSync(directory, { recursive: true, force: true });
});

function makeCertificates(): void {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  openssl('req', '-x509', ...key, '-subj', '/CN=Site CA', '-keyout', 'ca.key', '-out', 'ca.crt');
  openssl('req', ...key.slice(0, 5), '-subj', '/CN=localhost', '-keyout', 'broker.key', '-out', 'broker.csr');
  writeFileSync(join(directory, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  const signed = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names'];
  openssl('x509', '-req', '-in', 'broker.csr', ...signed, '-out', 'broker.crt');
  chmodSync(join(directory, 'broker.key'), 0o600);
  ca = readFileSync(join(directory, 'ca.crt'));
}

async function connected(user: User, options: IClientOptions = {}): Promise<MqttClient> {
  const client = await mqtt.connectAsync(`mqtts://localhost:${tlsPort}`, {
    protocolVersion: 5,
    username: user,
    password: PASSWORDS[user],
    ca: [ca],
    reconnectPeriod: 0,
    ...options,
  });
  client.on('error', () => {});
  clients.push(client);
  return client;
}

/** The first message on `topic`; all others go into `seen`. */
function firstOn(client: MqttClient, topic: string, seen: string[]): Promise<string> {
  return new Promise(resolve => {
    client.on('message', (on, payload) => {
      seen.push(on);
      if (on === topic) resolve(payload.toString());
    });
  });
}

const refused = async (what: Promise<unknown>) =>
  what.then(
    () => null,
    (error: Error) => error.message || String((error as NodeJS.ErrnoException).code),
  );

test('nobody gets in without a user, with a wrong password, without the CA, or below TLS 1.3', {
  skip,
}, async () => {
  const url = `mqtts://localhost:${tlsPort}`;
  const common = { protocolVersion: 5 as const, reconnectPeriod: 0, ca: [ca] };
  assert.match((await refused(mqtt.connectAsync(url, common))) ?? 'let in', NOT_AUTHORISED);
  const wrong = { ...common, username: 'pump', password: PASSWORDS.valve };
  assert.match((await refused(mqtt.connectAsync(url, wrong))) ?? 'let in', NOT_AUTHORISED);
  const right = { ...common, username: 'pump', password: PASSWORDS.pump };
  assert.match((await refused(mqtt.connectAsync(url, { ...right, ca: [] }))) ?? 'let in', /certificate/);
  const old = { ...right, maxVersion: 'TLSv1.2' as const };
  assert.match((await refused(mqtt.connectAsync(url, old))) ?? 'let in', /version|alert/);
});

test('a device writes and reads below its own name, and not below another', {
  skip,
  timeout: 20_000,
}, async () => {
  const pump = await connected('pump');
  const valve = await connected('valve');
  const gateway = await connected('gateway');
  const seenByValve: string[] = [];
  const seenByGateway: string[] = [];
  const toValve = firstOn(valve, 'devices/valve/commands', seenByValve);
  const toGateway = firstOn(gateway, 'devices/pump/telemetry', seenByGateway);
  await gateway.subscribeAsync('#', { qos: 1 });
  await valve.subscribeAsync('devices/#', { qos: 1 });

  const denied = (await refused(pump.publishAsync('devices/valve/telemetry', '{"n":1}', { qos: 1 }))) ?? 'ok';
  assert.match(denied, NOT_AUTHORISED);
  assert.match(
    (await refused(pump.publishAsync('spBv1.0/x/NDATA/y', '1', { qos: 1 }))) ?? 'ok',
    NOT_AUTHORISED,
  );
  await pump.publishAsync('devices/pump/telemetry', '{"n":2}', { qos: 1 });
  assert.equal(await toGateway, '{"n":2}');
  assert.deepEqual(seenByGateway, ['devices/pump/telemetry']);

  // A command for each; the valve, subscribed to all devices, sees its own alone.
  await gateway.publishAsync('devices/pump/commands', 'open', { qos: 1 });
  await gateway.publishAsync('devices/valve/commands', 'close', { qos: 1 });
  assert.equal(await toValve, 'close');
  assert.deepEqual(seenByValve, ['devices/valve/commands']);
});

test("a device cannot take another one's session by its client id", { skip, timeout: 20_000 }, async () => {
  const valve = await connected('valve', { clientId: 'valve' });
  const pump = await connected('pump', { clientId: 'valve' });
  let closed = false;
  valve.on('close', () => {
    closed = true;
  });
  // Both are asked for something after the pump got in: each has an answer of its own.
  await pump.publishAsync('devices/pump/telemetry', '1', { qos: 1 });
  await valve.publishAsync('devices/valve/telemetry', '1', { qos: 1 });
  assert.ok(!closed && valve.connected && pump.connected);
});

test('what waits for a gateway that is away is there after the broker was restarted', {
  skip,
  timeout: 20_000,
}, async () => {
  const session = {
    clientId: 'gateway',
    clean: false,
    properties: { sessionExpiryInterval: 3600 },
  } satisfies IClientOptions;
  const gateway = await connected('gateway', session);
  await gateway.subscribeAsync('devices/+/events', { qos: 1 });
  await gateway.endAsync();
  const pump = await connected('pump');
  await pump.publishAsync('devices/pump/events', 'leak', { qos: 1 });
  await broker!.stop();
  await broker!.start();
  const again = mqtt.connect(`mqtts://localhost:${tlsPort}`, {
    protocolVersion: 5,
    username: 'gateway',
    password: PASSWORDS.gateway,
    ca: [ca],
    ...session,
  });
  clients.push(again);
  again.on('error', () => {});
  assert.equal(await firstOn(again, 'devices/pump/events', []), 'leak');
});
