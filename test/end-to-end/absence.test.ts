/** Absence on the whole stack: a device that goes silent is one incident; a link that is cut makes nobody absent. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import mqtt from 'mqtt';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { openScene, type Scene, until } from './scene.ts';

const SITE = 'demo';
const SILENCE_MS = 4000;
/** Longer than the silence by more than a heartbeat. */
const CUT_MS = 10_000;

interface Incident {
  readonly rule: string;
  readonly device: string;
  readonly clearedAt: number | null;
}

let scene: Scene;
let link: Link;
let device: mqtt.MqttClient;
const speaking = new Map<string, NodeJS.Timeout>();

before(async () => {
  scene = await openScene({
    sites: { [SITE]: ['gw-1'] },
    async gatewayNatsUrl(url) {
      const through = new URL(url);
      link = await openLink({ host: through.hostname, port: Number(through.port) });
      through.port = String(link.port);
      return through.toString();
    },
  });
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
});
after(async () => {
  for (const timer of speaking.values()) clearInterval(timer);
  await device?.endAsync();
  await scene?.close();
  await link?.close();
});

function speak(name: string): void {
  const say = () =>
    void device.publishAsync(`devices/${name}/telemetry`, '{"t":1}', { qos: 1 }).catch(() => {});
  say();
  speaking.set(name, setInterval(say, 500));
}

function hush(name: string): void {
  clearInterval(speaking.get(name));
  speaking.delete(name);
}

const absences = async () =>
  (await scene.get<{ incidents: Incident[] }>(`/incidents?site=${SITE}`)).incidents.filter(
    ({ rule }) => rule === 'silent',
  );

test('who goes silent is absent once, and who speaks through an outage is not', async () => {
  speak('steady');
  speak('quitter');
  const put = await fetch(`${scene.stack.url}/rules/silent`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'absence', forMs: SILENCE_MS }),
  });
  assert.equal(put.status, 200, await put.text());
  await until('both have a twin', 15_000, async () => {
    const { total } = await scene.get<{ total: number }>('/twins');
    return total === 2;
  });
  hush('quitter');
  await until('the silent one is absent', 40_000, async () => (await absences()).length === 1);
  speak('quitter');
  await until('it was heard again', 15_000, async () => (await absences())[0]!.clearedAt !== null);

  link.cut();
  await new Promise(resolve => setTimeout(resolve, CUT_MS));
  link.heal();
  // By now a rule would have spoken: the one that goes silent after the outage has.
  hush('quitter');
  await until('the second silence is an incident', 40_000, async () => (await absences()).length === 2);
  assert.deepEqual(new Set((await absences()).map(incident => incident.device)), new Set(['quitter']));
});
