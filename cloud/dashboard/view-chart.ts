/** The chart of one numeric metric: a sliding window of time, gaps left open and shaded, limits of open alerts. */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { serverNow } from './api.ts';
import { type Drawable, drawable, lonePoints, type Point } from './chart-series.ts';
import { formatNumber, formatTick, formatTime } from './format.ts';

export type ChartProps = {
  readonly label: string;
  readonly points: () => readonly Point[];
  readonly rangeMs: number;
  /** Grows with every change of the points. */
  readonly revision: number;
  readonly limits: readonly number[];
};

const darkScheme = matchMedia('(prefers-color-scheme: dark)');
const COLOURS = ['accent', 'muted', 'line', 'gap', 'critical'] as const;
type Colours = Record<(typeof COLOURS)[number], string>;

function readColours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const entries = COLOURS.map(name => [name, style.getPropertyValue(`--${name}`).trim()]);
  return Object.fromEntries(entries) as Colours;
}

/** A tenth of room above and below; a flat line lies in the middle. */
function valueRange(_: uPlot, min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  const room = (max - min) * 0.1 || Math.max(Math.abs(max) * 0.02, 0.5);
  return [min - room, max + room];
}

/** More digits than the readings have would only pretend. */
const formatMean = (mean: number): string => formatNumber(Number(mean.toPrecision(5)));

type Summary = { readonly count: number; readonly min: number; readonly mean: number; readonly max: number };

function summarize(y: ReadonlyArray<number | null>): Summary | null {
  let count = 0;
  let sum = 0;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (const value of y) {
    if (value === null) continue;
    count += 1;
    sum += value;
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  return count === 0 ? null : { count, min, mean: sum / count, max };
}

export function Chart({ label, points, rangeMs, revision, limits }: ChartProps): VNode {
  const host = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const [dark, setDark] = useState(darkScheme.matches);
  const [summary, setSummary] = useState<Summary | null>(null);
  const refresh = useRef<() => void>(() => {});
  const current = useRef({ points, limits });
  current.current = { points, limits };

  useEffect(() => {
    const onChange = (): void => setDark(darkScheme.matches);
    darkScheme.addEventListener('change', onChange);
    return () => darkScheme.removeEventListener('change', onChange);
  }, []);

  // The colours are read anew when the scheme changes
  useEffect(() => {
    const element = host.current;
    if (element === null) return;
    let shown: Drawable = { x: [], y: [], gaps: [] };
    let window: [number, number] = [0, 1];
    const colours = readColours();
    const plot = new uPlot(
      chartOptions(element, colours, {
        window: () => window,
        gaps: () => shown.gaps,
        limits: () => current.current.limits,
        onCursor: index => {
          const at = index === null ? undefined : shown.x[index];
          const value = index === null ? undefined : shown.y[index];
          if (readout.current === null) return;
          readout.current.textContent =
            at === undefined || value == null
              ? ''
              : `${formatTime(at * 1_000, serverNow())}   ${formatNumber(value)}`;
        },
      }),
      [[], []],
      element,
    );
    const draw = (): void => {
      const now = serverNow();
      window = [(now - rangeMs) / 1_000, now / 1_000];
      shown = drawable(current.current.points(), now - rangeMs, now);
      plot.setData([shown.x, shown.y]);
      setSummary(summarize(shown.y));
    };
    // As often as the window moves by about a pixel, or a new value deserves to be seen.
    const intervalMs = Math.min(5_000, Math.max(1_000, rangeMs / 1_000));
    let timer: ReturnType<typeof setTimeout> | null = null;
    let drawnAt = 0;
    const drawSoon = (delayMs: number): void => {
      timer ??= setTimeout(
        () => {
          timer = null;
          drawnAt = performance.now();
          if (!document.hidden) draw();
        },
        Math.max(0, delayMs - (performance.now() - drawnAt)),
      );
    };
    const ticking = setInterval(() => drawSoon(0), intervalMs);
    refresh.current = () => drawSoon(rangeMs <= 3_600_000 ? 200 : 1_000);
    const observer = new ResizeObserver(() =>
      plot.setSize({ width: element.clientWidth, height: element.clientHeight }),
    );
    observer.observe(element);
    draw();
    return () => {
      refresh.current = () => {};
      clearInterval(ticking);
      if (timer !== null) clearTimeout(timer);
      observer.disconnect();
      plot.destroy();
    };
  }, [rangeMs, label, dark]);

  // A new revision is the reason to draw
  useEffect(() => refresh.current(), [revision]);

  const words =
    summary === null
      ? 'No reading in this range'
      : `${summary.count} readings, lowest ${formatNumber(summary.min)}, mean ${formatMean(summary.mean)}, highest ${formatNumber(summary.max)}`;
  return html`<figure class="chart">
    <div class="plot" ref=${host} role="img" aria-label="${label}: ${words}">
      ${summary === null ? html`<p class="plot-empty">No reading in this range</p>` : null}
    </div>
    <figcaption>
      ${
        summary === null
          ? null
          : html`<dl class="summary">
              <div><dt>lowest</dt><dd>${formatNumber(summary.min)}</dd></div>
              <div><dt>mean</dt><dd>${formatMean(summary.mean)}</dd></div>
              <div><dt>highest</dt><dd>${formatNumber(summary.max)}</dd></div>
              <div><dt>readings</dt><dd>${summary.count}</dd></div>
            </dl>`
      }
      <p class="readout" ref=${readout} aria-hidden="true"></p>
    </figcaption>
  </figure>`;
}

type Source = {
  readonly window: () => [number, number];
  readonly gaps: () => Drawable['gaps'];
  readonly limits: () => readonly number[];
  readonly onCursor: (index: number | null) => void;
};

function chartOptions(element: HTMLElement, colours: Colours, source: Source): uPlot.Options {
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const axis: uPlot.Axis = {
    font,
    stroke: colours.muted,
    grid: { stroke: colours.line, width: 1 },
    ticks: { stroke: colours.line, width: 1, size: 4 },
  };
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    padding: [12, 12, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { time: true, range: () => source.window() }, y: { range: valueRange } },
    axes: [
      {
        ...axis,
        space: 76,
        size: 34,
        values: (_, splits, __, ___, increment) => splits.map(split => formatTick(split * 1_000, increment)),
      },
      {
        ...axis,
        values: (_, splits) => splits.map(formatNumber),
        size: (plot, labels) => {
          const longest = (labels ?? []).reduce((a, b) => (b.length > a.length ? b : a), '');
          plot.ctx.save();
          plot.ctx.font = font;
          const width = plot.ctx.measureText(longest).width;
          plot.ctx.restore();
          return Math.max(36, Math.ceil(width) + 14);
        },
      },
    ],
    series: [
      {},
      {
        stroke: colours.accent,
        width: 1.5,
        points: {
          size: 4,
          fill: colours.accent,
          // A point that no line reaches would not be seen: those are always drawn.
          show: true,
          filter: (plot, seriesIndex, show) =>
            show && readingsStandApart(plot) ? null : lonePoints(plot.data[seriesIndex] ?? []),
        },
      },
    ],
    hooks: {
      drawClear: [plot => shadeGaps(plot, source.gaps(), colours.gap)],
      draw: [plot => drawLimits(plot, source.limits(), colours.critical)],
      setCursor: [plot => source.onCursor(plot.cursor.idx ?? null)],
    },
  };
}

/** Far enough from each other, in pixels, to be seen one by one. */
function readingsStandApart(plot: uPlot): boolean {
  const [x] = plot.data;
  const first = x[0];
  const last = x[x.length - 1];
  if (first === undefined || last === undefined) return false;
  return plot.valToPos(last, 'x') - plot.valToPos(first, 'x') > 12 * (x.length - 1);
}

function shadeGaps(plot: uPlot, gaps: Drawable['gaps'], colour: string): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = colour;
  for (const [from, to] of gaps) {
    const left = Math.max(bbox.left, plot.valToPos(from / 1_000, 'x', true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos(to / 1_000, 'x', true));
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
  ctx.restore();
}

function drawLimits(plot: uPlot, limits: readonly number[], colour: string): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const limit of limits) {
    const y = plot.valToPos(limit, 'y', true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}
