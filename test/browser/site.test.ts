/** A site whose link is cut and comes back, as the dashboard shows it: fleet, twin, chart and the page of the site. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { openBrowser, openPage, overflowPx, readingsOnChart, shows, takePicture } from './browser.ts';
import { type RealStack, startRealStack } from './real-stack.ts';

const MINUTE_MS = 60_000;

test('a site on the dashboard, from well to silent and back', { timeout: 300_000 }, async t => {
  const browser = await openBrowser(t);
  if (browser === null) return;
  const stack = await startRealStack(t);
  await whole(t, browser, stack);
  await presence(t, browser, stack);
  await thinned(t, browser, stack);
  await cutAndBack(t, browser, stack);
});

const whole = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('site page: what the gateway says, and the ledger', async s => {
    for (let n = 0; n < 5; n += 1) await stack.publish('devices/first/telemetry', { up: n });
    const { page, complaints } = await openPage(s, browser, `${stack.url}/#/health`);
    await page.locator('td').getByRole('link', { name: 'demo' }).click();
    await shows(page, 'h1', 'demo');
    await shows(page, '.gateway[data-link=up] .gateway-link', 'up, heard');
    await shows(page, '.gateway .role', 'active');
    await shows(page, '.gateway .figures', 'connected');
    await shows(page, '.gateway .figures', 'does not fill');
    await page.locator('.gateway meter').waitFor();
    await shows(page, '.log .fates', 'live');
    assert.equal(await page.locator('.log [data-kind=live]').count(), 2, 'a part of the bar and its swatch');
    await takePicture(page, 'site-up');
    await page.goto(`${stack.url}/#/site/nowhere`);
    await shows(page, '.notice', 'No gateway of a site with this name has been heard');
    await shows(page, '.completeness .notice', 'No message of this site is known yet');
    const other = complaints.filter(text => !text.includes('404'));
    assert.deepEqual(other, [], 'the browser itself reports the 404 of the unknown site');
  });

const presence = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('presence: offline since, in the fleet and on the twin, until it is back', async s => {
    await stack.publish('devices/pump/telemetry', { temperature: 20 });
    await stack.publish('devices/pump/status', 'offline');
    const { page, complaints } = await openPage(s, browser, `${stack.url}/`);
    await shows(page, '[data-twin="demo/pump"] .away', 'offline');
    await takePicture(page, 'fleet-offline');
    await page.locator('[data-twin="demo/pump"] .cell-site a').focus();
    await page.keyboard.press('Enter');
    await shows(page, 'h1', 'demo');
    await page.goto(`${stack.url}/#/twin/demo/pump`);
    await shows(page, '.presence[data-online=false]', 'offline since');
    await takePicture(page, 'twin-offline');
    await stack.publish('devices/pump/status', 'online');
    await shows(page, '.presence[data-online=true]', 'online');
    await page.goto(`${stack.url}/#/`);
    await page.locator('[data-twin="demo/pump"]').waitFor();
    assert.equal(await page.locator('.away').count(), 0);
    assert.deepEqual(complaints, []);
  });

/** As history writes it for a thinned batch: five minutes of summaries, an hour ago and before all readings. */
async function insertThinned(stack: RealStack, device: string, metric: string): Promise<void> {
  const start = Math.floor((Date.now() - 50 * MINUTE_MS) / MINUTE_MS) * MINUTE_MS;
  await stack.postgres.query(
    `with m as (insert into holdfast.metric (name) values ($2) on conflict (name) do update set name = excluded.name returning id)
     insert into holdfast.summary (at, sequence, log, device, metric, interval_ms, minimum, maximum, mean, count)
     select to_timestamp($3::float8 / 1000) + n * interval '1 minute', 1000000, l.id, d.id, m.id, 60000, 10, 30, 20 + n, 12
       from generate_series(0, 4) n, m, holdfast.device d, holdfast.gateway_log l
      where d.site = 'demo' and d.name = $1 and l.site = 'demo'`,
    [device, metric, start],
  );
  await stack.postgres.query(
    `insert into holdfast.ledger_minute (log, minute, status, messages)
     select l.id, to_timestamp($1::float8 / 1000) + n * interval '1 minute', 'thinned', 12
       from generate_series(0, 4) n, holdfast.gateway_log l where l.site = 'demo'`,
    [start],
  );
}

const thinned = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('chart: thinned time is a band with its mean, and is named', async s => {
    await stack.publish('devices/meter/telemetry', { level: 20 });
    const { page, complaints } = await openPage(s, browser, `${stack.url}/#/twin/demo/meter?range=1+h`);
    await readingsOnChart(page, 1);
    assert.equal(await page.locator('.legend').count(), 0, 'nothing is shaded in a range that is whole');
    await insertThinned(stack, 'meter', 'level');
    await shows(page, '.legend', 'thinned 5 min');
    await shows(page, '.legend', 'lowest, mean and highest');
    await readingsOnChart(page, 61);
    await shows(page, '.summary', 'of them thinned');
    const box = await page.locator('.plot .u-over').boundingBox();
    assert.ok(box);
    // 47.5 minutes ago on an axis of an hour
    await page.mouse.move(box.x + (box.width * 12.5) / 60, box.y + box.height / 2);
    await shows(page, '.readout', '10 to 30, mean 2');
    await takePicture(page, 'chart-thinned');
    assert.deepEqual(complaints, []);
  });

const cutAndBack = (t: TestContext, browser: Browser, stack: RealStack) =>
  t.test('a silent gateway: old values look old, what is missing is at the site, and comes late', async s => {
    const at = (secondsAgo: number): number => Date.now() - secondsAgo * 1_000;
    for (let n = 30; n > 20; n -= 1) await stack.publish('devices/line/telemetry', { ts: at(n), flow: n });
    const [fleet, twin, site] = await Promise.all([
      openPage(s, browser, `${stack.url}/`),
      openPage(s, browser, `${stack.url}/#/twin/demo/line`),
      openPage(s, browser, `${stack.url}/#/site/demo`, { width: 360, height: 740, scheme: 'dark' }),
    ]);
    await readingsOnChart(twin.page, 10);

    stack.link.cut();
    // On disk before the gateway is killed: what the broker has to hand over again would be new, and live.
    for (let n = 10; n > 0; n -= 1) await stack.publishToDisk('line', { ts: at(n), flow: n });
    await stack.restartGateway();

    await shows(twin.page, '.silent-gateway', 'has been silent for');
    // What its next hello would have said.
    await stack.postgres.query(
      "update holdfast.gateway_log set ends = upper(settled) + 10 where site = 'demo'",
    );
    await twin.page.locator('[data-metric=flow] .age[data-fresh=stale]').waitFor();
    await shows(fleet.page, '[data-twin="demo/line"] .away', 'gateway silent');
    await shows(fleet.page, '.silent-sites', 'demo');
    await shows(site.page, '.gateway[data-link=silent]', 'silent since');
    await shows(site.page, '.gateway .old', 'These figures are what it said');
    await shows(site.page, '.log .fates', '10 missing');
    await site.page.getByText('Which are missing').focus();
    await site.page.keyboard.press('Enter');
    await shows(site.page, '.log details[open]', '(10 messages)');
    assert.ok((await overflowPx(site.page)) <= 0, 'the page fits a phone');
    await shows(twin.page, '.legend', 'missing, still at the site');

    await takePicture(fleet.page, 'fleet-silent');
    await takePicture(twin.page, 'twin-silent');
    await takePicture(site.page, 'site-silent-phone');
    stack.link.heal();
    await shows(site.page, '.gateway[data-link=up]', 'up, heard');
    await shows(site.page, '.log .fates', 'late');
    await shows(twin.page, '.legend', 'came late');
    await readingsOnChart(twin.page, 20);
    await takePicture(twin.page, 'twin-late');
    await twin.page.locator('.silent-gateway').waitFor({ state: 'detached' });
    await fleet.page.locator('.silent-sites').waitFor({ state: 'detached' });
    for (const { complaints } of [fleet, twin, site]) assert.deepEqual(complaints, []);
  });
