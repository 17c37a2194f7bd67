/**
 * The demo's links: a button per site that cuts its link, and what comes of it. In any other installation the server has
 * no such links, and there is nothing to see here.
 */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { getJson, serverNow } from './api.ts';
import { formatCount, formatDuration } from './format.ts';
import { useLive, useNow } from './hooks.ts';
import type { Live } from './live.ts';
import { field, isFields, numberOf, textOf } from './model.ts';

type DemoLink = {
  readonly site: string;
  readonly cut: boolean;
  /** When it was cut or restored; `null` while it has been whole all the time. */
  readonly changedAt: number | null;
  /** On the gateways' disks. */
  readonly bufferBytes: number | null;
};

const PATH = '/demo/links';
const ASK_MS = 1_000;
/** A button that was pressed is asked about more often, until the wish is seen done. */
const SOON_MS = 150;

const linksOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

const readLinks = (body: unknown): DemoLink[] =>
  linksOf(isFields(body) ? field(body, 'links') : null)
    .filter(isFields)
    .map(link => ({
      site: textOf(field(link, 'site')),
      cut: field(link, 'cut') === true,
      changedAt: numberOf(field(link, 'changedAt')),
      bufferBytes: numberOf(field(link, 'bufferBytes')),
    }));

/** Asks once; goes on asking only where there are links. */
function useDemoLinks(): { links: readonly DemoLink[]; askSoon: () => void } {
  const [links, setLinks] = useState<readonly DemoLink[]>([]);
  const again = useRef<(ms: number) => void>(() => {});
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | null = null;
    let isDemo = false;
    const ask = async (): Promise<void> => {
      const outcome = await getJson(PATH, readLinks, abort.signal);
      if (abort.signal.aborted) return;
      if (outcome.ok) {
        isDemo = outcome.value.length > 0;
        setLinks(outcome.value);
      }
      if (isDemo) again.current(ASK_MS);
    };
    again.current = ms => {
      if (timer !== null) clearTimeout(timer);
      timer = setTimeout(() => void ask(), ms);
    };
    void ask();
    return () => {
      abort.abort();
      if (timer !== null) clearTimeout(timer);
    };
  }, []);
  return { links, askSoon: () => again.current(SOON_MS) };
}

export function DemoLinks({ live }: { live: Live }): VNode | null {
  useLive(live);
  const now = useNow();
  const { links, askSoon } = useDemoLinks();
  if (links.length === 0) return null;
  return html`<section class="demo-links" aria-label="Links of this demo">
    ${links.map(link => html`<${DemoLinkRow} key=${link.site} link=${link} live=${live} now=${now} askSoon=${askSoon} />`)}
  </section>`;
}

type RowProps = { link: DemoLink; live: Live; now: number; askSoon: () => void };

function DemoLinkRow({ link, live, now, askSoon }: RowProps): VNode {
  const [wanted, setWanted] = useState<boolean | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const bytesAtCut = useRef<{ changedAt: number; bytes: number } | null>(null);
  const freshAfter = useRef<{ changedAt: number; ms: number } | null>(null);
  useEffect(() => {
    if (wanted === link.cut) setWanted(null);
  }, [wanted, link.cut]);

  const { site, cut, changedAt, bufferBytes } = link;
  if (cut && changedAt !== null && bufferBytes !== null && bytesAtCut.current?.changedAt !== changedAt) {
    bytesAtCut.current = { changedAt, bytes: bufferBytes };
  }
  if (!cut && changedAt !== null && freshAfter.current?.changedAt !== changedAt) {
    if (hasValueSince(live, site, changedAt))
      freshAfter.current = { changedAt, ms: Math.max(0, serverNow() - changedAt) };
  }

  const press = async (): Promise<void> => {
    setWanted(!cut);
    setFailure(null);
    const told = await tell(site, !cut);
    if (!told) {
      setWanted(null);
      setFailure('The demo did not answer; try again.');
    }
    askSoon();
  };

  const grown = bufferBytes !== null && bytesAtCut.current ? bufferBytes - bytesAtCut.current.bytes : 0;
  const freshMs = freshAfter.current?.ms ?? null;
  const said = failure ?? describe({ cut, changedAt, now, grown, backlog: backlogOf(live, link), freshMs });
  return html`<div class="demo-link" data-site=${site} data-cut=${cut}>
    <span class="demo-link-site">${site}</span>
    <button type="button" disabled=${wanted !== null} onClick=${() => void press()}>
      ${cut ? 'Restore the link' : 'Cut the link'}
    </button>
    <span class="demo-link-said" role="status">${said}</span>
  </div>`;
}

/** A device of the demo publishes once a second; what is under way is no backlog. */
const UNDER_WAY_PER_DEVICE = 2;

/** Messages that wait at the site's gateways; `null` until all of them have spoken since the link came back. */
function backlogOf(live: Live, { site, changedAt }: DemoLink): number | null {
  const found = live.sites()?.find(each => each.site === site);
  if (!found || changedAt === null) return null;
  if (found.gateways.some(({ lastHelloAt }) => lastHelloAt === null || lastHelloAt < changedAt)) return null;
  const waiting = found.gateways.reduce((sum, gateway) => sum + (gateway.unsettledMessages ?? 0), 0);
  return waiting > UNDER_WAY_PER_DEVICE * found.twins ? waiting : 0;
}

type Situation = {
  cut: boolean;
  changedAt: number | null;
  now: number;
  grown: number;
  backlog: number | null;
  freshMs: number | null;
};

function describe({ cut, changedAt, now, grown, backlog, freshMs }: Situation): string {
  if (changedAt === null) return 'The link is well.';
  const since = formatDuration(now - changedAt);
  if (cut) {
    const kept =
      grown > 0 ? `; its gateway has put ${Math.ceil(grown / 1024)} KiB on its disk meanwhile` : '';
    return `Cut since ${since}${kept}.`;
  }
  if (freshMs === null) return `Restored ${since} ago; waiting for the first new value.`;
  const fresh = `Restored: the first new value was here after ${(freshMs / 1_000).toFixed(1)} s`;
  if (backlog === null) return `${fresh}.`;
  return backlog > 0
    ? `${fresh}; ${formatCount(backlog)} messages of the backlog are still to come.`
    : `${fresh}, and the backlog is in history.`;
}

/** By the devices' own clocks, which in the demo are this machine's. */
function hasValueSince(live: Live, site: string, since: number): boolean {
  for (const twin of live.fleet.twins.values()) {
    if (twin.site === site && twin.newestAt !== null && twin.newestAt >= since) return true;
  }
  return false;
}

async function tell(site: string, cut: boolean): Promise<boolean> {
  try {
    const response = await fetch(`${PATH}/${encodeURIComponent(site)}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ cut }),
    });
    return response.ok;
  } catch {
    return false;
  }
}
