/**
 * The live side of the page in one place: the push link, the twins it brings, and who is told. Views draw at most
 * `DRAW_INTERVAL_MS` apart however fast updates come in; the twins themselves are always the newest.
 */
import { getJson, paths, serverNow } from './api.ts';
import { applyFrame, emptyFleet, type Fleet, forgetSnapshots } from './fleet-state.ts';
import type { Polled } from './hooks.ts';
import { readFrame, type Twin } from './model.ts';
import { createPushClient, type LinkStatus, type Wanted } from './push-client.ts';
import { readSites, type Site, silentSites } from './site-model.ts';

const DRAW_INTERVAL_MS = 120;
const INCIDENTS_READ_AFTER_MS = 1_000;
const SITES_INTERVAL_MS = 5_000;
const ASK_AGAIN_MS = 2_000;

export type Focus = { readonly view: 'fleet' } | { readonly view: 'twin'; readonly key: string } | null;

export type Live = {
  readonly fleet: Fleet;
  link(): LinkStatus;
  /** `null` until the first answer; a failed question keeps the last one. */
  sites(): readonly Site[] | null;
  sitesFailure(): string | null;
  /** Both of these, with the time they are of. */
  polledSites(): Polled<readonly Site[]>;
  /** Since when none of the site's gateways is heard any more; `null` while one is, or nothing is known. */
  silentSince(site: string): number | null;
  /** Frames that could not be read. */
  refusedFrames(): number;
  /** What the server said when it could not give a snapshot; `null` once it can. */
  pushProblem(): string | null;
  /** Changes when incidents are worth reading again. */
  incidentsRevision(): number;
  incidentsChanged(): void;
  /** Decides what is subscribed to: all sites, one twin, or nothing. */
  focus(focus: Focus): void;
  retryNow(): void;
  /** Told when something to draw has changed; returns its release. */
  subscribe(listener: () => void): () => void;
  /** Told of every change of twins, undelayed. */
  onTwins(listener: (twins: readonly Twin[]) => void): () => void;
};

export function createLive(pushUrl: string): Live {
  const fleet = emptyFleet();
  const drawListeners = new Set<() => void>();
  const twinListeners = new Set<(twins: readonly Twin[]) => void>();
  let link: LinkStatus = { phase: 'stopped' };
  let polledSites: Polled<readonly Site[]> = { value: null, at: null, problem: null };
  let silent: ReadonlyMap<string, number> = new Map();
  let refusedFrames = 0;
  let pushProblem: string | null = null;
  let askAgainTimer: ReturnType<typeof setTimeout> | null = null;
  let focused: Focus = null;
  let drawTimer: ReturnType<typeof setTimeout> | null = null;
  let incidentsRevision = 0;
  let incidentsTimer: ReturnType<typeof setTimeout> | null = null;
  let drawnAt = 0;

  function draw(): void {
    drawTimer = null;
    drawnAt = performance.now();
    for (const listener of drawListeners) listener();
  }
  function drawSoon(): void {
    if (drawTimer !== null) return;
    drawTimer = setTimeout(draw, Math.max(0, DRAW_INTERVAL_MS - (performance.now() - drawnAt)));
  }

  const client = createPushClient({
    url: pushUrl,
    onStatus: status => {
      if (status.phase === 'waiting') forgetSnapshots(fleet);
      link = status;
      drawSoon();
    },
    onFrame: text => {
      const frame = readFrame(text);
      if (frame === null) refusedFrames += 1;
      else if (frame.type === 'error') refused(frame.code, frame.detail);
      else if (frame.type === 'incidents') incidentsSoon();
      else {
        const { changed, resync } = applyFrame(fleet, frame);
        if (frame.type === 'snapshot') received(frame.scope);
        if (resync.length > 0) client.resync(resync);
        if (changed.length > 0) for (const listener of twinListeners) listener(changed);
      }
      drawSoon();
    },
  });

  /** The push is ahead of the database that answers; many at once are read once. */
  function incidentsSoon(): void {
    if (incidentsTimer !== null) return;
    incidentsTimer = setTimeout(() => {
      incidentsTimer = null;
      incidentsRevision += 1;
      drawSoon();
    }, INCIDENTS_READ_AFTER_MS);
  }

  function received(scope: string): void {
    if (fleet.complete.has(scope)) pushProblem = null;
    if (scope.startsWith('twin:')) client.arrived(scope.slice('twin:'.length));
  }

  /** A snapshot that could not be read just then is asked for again; other errors answer pings or are told elsewhere. */
  function refused(code: string, detail: string): void {
    if (code !== 'unavailable') return;
    pushProblem = detail || code;
    if (askAgainTimer !== null) return;
    askAgainTimer = setTimeout(
      () => {
        askAgainTimer = null;
        const { sites: allSites, twins } = focusedScopes();
        client.askAgain({
          sites: allSites.filter(site => !fleet.complete.has(`site:${site}`)),
          twins: twins.filter(key => !fleet.complete.has(`twin:${key}`)),
        });
      },
      ASK_AGAIN_MS * (0.5 + Math.random()),
    );
  }

  function focusedScopes(): Wanted {
    if (focused?.view === 'fleet')
      return { sites: (polledSites.value ?? []).map(({ site }) => site), twins: [] };
    return { sites: [], twins: focused === null ? [] : [focused.key] };
  }
  function wantFocused(): void {
    client.want(focusedScopes());
  }

  async function refreshSites(): Promise<void> {
    const outcome = await getJson(paths.sites, readSites);
    if (outcome.ok) {
      polledSites = { value: outcome.value, at: serverNow(), problem: null };
      silent = silentSites(outcome.value);
      if (focused?.view === 'fleet') wantFocused();
    } else polledSites = { ...polledSites, problem: outcome.problem };
    setTimeout(() => void refreshSites(), outcome.ok ? SITES_INTERVAL_MS : 2_000);
    drawSoon();
  }

  client.start();
  void refreshSites();
  addEventListener('online', () => client.retryNow());

  return {
    fleet,
    link: () => link,
    sites: () => polledSites.value,
    sitesFailure: () => polledSites.problem && (polledSites.problem.detail || polledSites.problem.title),
    polledSites: () => polledSites,
    silentSince: site => silent.get(site) ?? null,
    refusedFrames: () => refusedFrames,
    pushProblem: () => pushProblem,
    incidentsRevision: () => incidentsRevision,
    incidentsChanged(): void {
      incidentsRevision += 1;
      drawSoon();
    },
    focus(next: Focus): void {
      focused = next;
      wantFocused();
    },
    retryNow: () => client.retryNow(),
    subscribe(listener: () => void): () => void {
      drawListeners.add(listener);
      return () => void drawListeners.delete(listener);
    },
    onTwins(listener: (twins: readonly Twin[]) => void): () => void {
      twinListeners.add(listener);
      return () => void twinListeners.delete(listener);
    },
  };
}
