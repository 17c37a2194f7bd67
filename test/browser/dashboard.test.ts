/** The dashboard in a real Chromium on the real line: device, broker, gateway, stream, twins, history, page. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import type { BackupOutlook } from '../../cloud/backup/outlook.ts';
import { openBrowser, openPage, overflowPx, readingsOnChart, shows, takePicture } from './browser.ts';
import { type RealStack, startRealStack } from './real-stack.ts';

const row = (page: Page, key: string) => page.locator(`[data-twin="${key}"]`);
const valueCell = (page: Page, metric: string) => page.locator(`[data-metric="${metric}"] .value`);

test('the dashboard on the real line', { timeout: 300_000 }, async t => {
  const browser = await openBrowser(t);
  if (browser === null) return;
  const stack = await startRealStack(t);
  await fleet(t, browser, stack);
  await twin(t, browser, stack);
  await words(t, browser, stack);
  await alerts(t, browser, stack);
  await health(t, browser, stack);
  await backups(t, browser, stack);
  await everyLook(t, browser, stack);
  await cut(t, browser, stack);
});

const fleet = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('fleet: a published value appears, changes, is found and ordered', async s => {
    for (const [index, device] of ['pump-2', 'pump-10', 'boiler.A', 'constructor'].entries()) {
      await stack.publish(`devices/${device}/telemetry`, { temperature: 20 + index });
    }
    const { page, complaints } = await openPage(s, browser, `${stack.url}/`);
    await shows(page, '[role=status]', 'Live');
    await shows(page, '[data-twin="demo/pump-2"] .value', '20');
    await row(page, 'demo/constructor').waitFor();

    await stack.publish('devices/pump-2/telemetry', { temperature: 21.5, extra: true });
    await shows(page, '[data-twin="demo/pump-2"] .value', '21.5');
    await shows(page, '[data-twin="demo/pump-2"] .value', 'yes');
    await stack.publish('devices/newcomer/telemetry', { temperature: 1 });
    await row(page, 'demo/newcomer').waitFor();

    const names = () =>
      page.locator('[data-twin]').evaluateAll(rows => rows.map(each => each.getAttribute('data-twin')));
    await page.keyboard.press('/');
    await page.keyboard.type('pump');
    await row(page, 'demo/newcomer').waitFor({ state: 'detached' });
    assert.deepEqual(await names(), ['demo/pump-2', 'demo/pump-10']);
    await page.getByRole('button', { name: 'Device' }).click();
    await page.locator('[aria-sort=descending]').waitFor();
    assert.deepEqual(await names(), ['demo/pump-10', 'demo/pump-2']);
    await page.reload();
    await row(page, 'demo/pump-10').waitFor();
    assert.deepEqual(await names(), ['demo/pump-10', 'demo/pump-2'], 'search and order are in the address');
    await page.getByRole('searchbox').fill('nothing like this');
    await shows(page, '.notice', 'No twin matches');
    await page.getByRole('button', { name: 'Show all' }).click();

    await row(page, 'demo/pump-2').getByRole('link', { name: 'pump-2' }).focus();
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('Enter');
    await shows(page, 'h1', 'pump-10');
    assert.deepEqual(complaints, []);
  });

const twin = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('twin: history and live points join without gap or double', async s => {
    const before = Date.now() - 60_000;
    for (let n = 0; n < 30; n += 1) {
      await stack.publish('devices/joined/telemetry', { ts: before + n * 1_000, level: n });
    }
    const { page, complaints } = await openPage(s, browser, `${stack.url}/#/twin/demo/joined`);
    await shows(page, '[data-metric="level"] .value', '29');
    await readingsOnChart(page, 30);
    for (let n = 30; n < 40; n += 1) {
      await stack.publish('devices/joined/telemetry', { ts: before + n * 1_000, level: n });
    }
    await shows(page, '[data-metric="level"] .value', '39');
    await readingsOnChart(page, 40);
    const drawn = await page.locator('.plot canvas').evaluate(element => {
      const canvas = element as unknown as {
        width: number;
        height: number;
        getContext(kind: '2d'): {
          getImageData(x: number, y: number, w: number, h: number): { data: Uint8ClampedArray };
        };
      };
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    });
    assert.ok(drawn > 10, `${drawn} colours on the canvas`);

    await page.getByRole('button', { name: '90 d' }).click();
    await readingsOnChart(page, 40);
    await page.reload();
    await readingsOnChart(page, 40);
    assert.equal(await page.getByRole('button', { name: '90 d' }).getAttribute('aria-pressed'), 'true');
    assert.deepEqual(complaints, []);
  });

const words = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('twin: words, switches and hostile names are shown as they are', async s => {
    const markup = '<img src=x onerror=alert(1)>';
    const at = Date.now() - 10_000;
    for (const [index, mode] of ['idle', 'idle', markup].entries()) {
      await stack.publish('devices/words/telemetry', {
        ts: at + index * 1_000,
        mode,
        running: index > 1,
        toString: index,
      });
    }
    const { page, complaints } = await openPage(s, browser, `${stack.url}/#/twin/demo/words?metric=mode`);
    await shows(page, '[data-metric="mode"] .value', markup);
    await shows(page, '[data-metric="running"] .value', 'yes');
    await shows(page, '[data-metric="toString"] .value', '2');
    await shows(page, '.runs tbody tr:nth-child(1)', markup);
    await shows(page, '.runs tbody tr:nth-child(2)', 'idle');
    assert.equal(await page.locator('.runs tbody tr').count(), 2);
    await page.goto(`${stack.url}/#/twin/demo/never-seen`);
    await shows(page, '.notice', 'This device has never reported');
    await stack.publish('devices/never-seen/telemetry', { temperature: 5 });
    await valueCell(page, 'temperature').waitFor();
    await page.goto(`${stack.url}/#/no/such/view`);
    await shows(page, '.notice', 'There is nothing at this address');
    const other = complaints.filter(text => !text.includes('404'));
    assert.deepEqual(other, [], 'the browser itself reports the 404 of the unknown twin');
  });

const alerts = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('alerts: open on fleet, twin and list, then past', async s => {
    await stack.postgres.query(
      `insert into holdfast.rule (id, metric, comparison, threshold, hysteresis, severity, device)
       values ('too-hot', 'heat', 'above', 30, 1, 'critical', 'oven')`,
    );
    const { page, complaints } = await openPage(s, browser, `${stack.url}/`);
    // Rules are read anew every few seconds: a value above the limit alerts as soon as the rule is there.
    const badge = row(page, 'demo/oven').locator('.badge');
    for (let heat = 31; (await badge.count()) === 0; heat += 0.01) {
      assert.ok(heat < 33, 'the rule never fired');
      await stack.publish('devices/oven/telemetry', { heat });
      await badge.waitFor({ timeout: 250 }).catch(() => {});
    }
    await shows(page, 'nav .count', '1');
    await page.goto(`${stack.url}/#/alerts`);
    await shows(page, '.incidents tbody tr', 'too-hot');
    await shows(page, '.still', 'open');
    await page.getByRole('button', { name: 'Acknowledge too-hot of oven' }).click();
    await shows(page, '.incidents tbody th', 'acknowledged by dashboard');
    assert.equal(await page.locator('.incidents button').count(), 0);
    await page.goto(`${stack.url}/#/twin/demo/oven`);
    await shows(page, '.open-alerts', 'limit 30');
    await stack.publish('devices/oven/telemetry', { heat: 20 });
    await page.locator('.open-alerts').waitFor({ state: 'detached' });
    await page.goto(`${stack.url}/#/alerts`);
    await shows(page, '.notice', 'Nothing is wrong');
    await shows(page, '[aria-labelledby="alerts-past"] tr', 'too-hot');
    assert.deepEqual(complaints, []);
  });

const health = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('pipeline: state, gateways, and what was set aside with its reason', async s => {
    await stack.publish('devices/bad/telemetry', '{"temperature":');
    await stack.publish('no/known/shape', 'hello');
    const { page, complaints } = await openPage(s, browser, `${stack.url}/#/health`);
    await shows(page, '.servers', 'postgres');
    await shows(page, 'table tbody tr', 'gw-1');
    await shows(page, '.quarantine tbody tr', 'no/known/shape');
    await shows(page, '.quarantine tbody tr', 'not JSON');
    assert.deepEqual(complaints, []);
  });

const backups = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('pipeline: what is in no backup, a warning after a day and a worse one after three', async s => {
    const panel = '.backups';
    const look = async (name: string, state: string, text: string) => {
      for (const scheme of ['light', 'dark'] as const) {
        const { page, complaints } = await openPage(s, browser, `${stack.url}/#/health`, { scheme });
        await shows(page, `${panel}[data-state=${state}]`, text);
        await takePicture(page, `backups-${name}-${scheme}`);
        assert.deepEqual(complaints, []);
      }
    };
    await look('never', 'fresh', 'No backup was ever confirmed');
    const post = async (path: string): Promise<{ id: number }> =>
      (await fetch(stack.url + path, { method: 'POST' })).json() as Promise<{ id: number }>;
    const { id } = await post('/backups');
    await post(`/backups/${id}/confirm`);
    await look('fresh', 'fresh', `Backup ${id}, begun`);
    const age = (hours: number) =>
      stack.postgres.query(
        `update holdfast.backup set begun_at = clock_timestamp() - make_interval(hours => $1)`,
        [hours],
      );
    await age(30);
    await look('due', 'due', 'A backup is due');
    await age(80);
    await stack.publish('devices/after-the-backup/telemetry', { n: 1 });
    for (let messages = 0; messages === 0; ) {
      const answer = await fetch(`${stack.url}/backups`);
      messages = ((await answer.json()) as BackupOutlook).uncovered.messages;
    }
    await look('overdue', 'overdue', '80 h');
  });

const everyLook = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('every view fits a phone, in the light and in the dark', async s => {
    for (const scheme of ['light', 'dark'] as const) {
      const { page, complaints } = await openPage(s, browser, `${stack.url}/`, {
        scheme,
        width: 360,
        height: 740,
      });
      for (const [hash, there] of [
        ['#/', '[data-twin]'],
        ['#/twin/demo/joined', '.plot canvas'],
        ['#/site/demo', '.ledger-bar'],
        ['#/alerts', '.incidents'],
        ['#/health', '.quarantine'],
      ] as const) {
        await page.goto(`${stack.url}/${hash}`);
        await page.locator(there).first().waitFor();
        const overflow = await overflowPx(page);
        assert.ok(overflow <= 0, `${hash} is ${overflow} px too wide, ${scheme}`);
      }
      assert.deepEqual(complaints, []);
    }
  });

const cut = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('a cut while watching is shown at once, and the page comes back with what it missed', async s => {
    await stack.publish('devices/watched/telemetry', { n: 1 });
    const { page } = await openPage(s, browser, `${stack.url}/`);
    await shows(page, '[data-twin="demo/watched"] .value', '1');
    await page.locator('main[data-live=true]').waitFor();
    await stack.killCloud();
    await shows(page, '.cut', 'No live connection');
    await shows(page, '.link', 'Cut off');
    await page.locator('main[data-live=false]').waitFor();
    await shows(page, '[data-twin="demo/watched"] .value', '1');
    await stack.publish('devices/watched/telemetry', { n: 2 });
    await stack.publish('devices/meanwhile/telemetry', { n: 7 });
    await stack.startCloud();
    await shows(page, '.link', 'Live');
    await shows(page, '[data-twin="demo/watched"] .value', '2');
    await row(page, 'demo/meanwhile').waitFor();
    assert.equal(await page.locator('.cut').count(), 0);
  });
