/**
 * The chart of one numeric metric: a sliding window of time, gaps left open and shaded, stretches that are late, thinned,
 * missing or lost told by pattern, the band of what was thinned, limits of open alerts.
 */
import { html } from 'htm/preact';
import type { VNode } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { serverNow } from './api.ts';
import {
  makePatterns,
  paintGaps,
  paintGapWords,
  paintLimits,
  paintShades,
  paintSummaries,
  readColours,
} from './chart-paint.ts';
import { type Drawable, drawable, lonePoints, type Point } from './chart-series.ts';
import { figuresOf, outside, type PlotFigures, spansOf, summariesWithin, summaryAt } from './chart-shades.ts';
import { formatCount, formatNumber, formatTick, formatTime } from './format.ts';
import type { Shade, Summary } from './history-model.ts';

export type ChartProps = {
  readonly label: string;
  readonly points: () => readonly Point[];
  readonly summaries: () => readonly Summary[];
  readonly shades: () => readonly Shade[];
  readonly rangeMs: number;
  /** Grows with every change of the points. */
  readonly revision: number;
  readonly limits: readonly number[];
};

const darkScheme = matchMedia('(prefers-color-scheme: dark)');

/** A tenth of room above and below; a flat line lies in the middle. */
function valueRange(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  const room = (max - min) * 0.1 || Math.max(Math.abs(max) * 0.02, 0.5);
  return [min - room, max + room];
}

/** Of the readings, given by uPlot, and of the summaries, which it does not know. */
function rangeWith(summaries: readonly Summary[], min: number | null, max: number | null): [number, number] {
  let [low, high] = [min, max];
  for (const summary of summaries) {
    low = Math.min(low ?? summary.min, summary.min);
    high = Math.max(high ?? summary.max, summary.max);
  }
  return valueRange(low, high);
}

/** More digits than the readings have would only pretend. */
const formatMean = (mean: number): string => formatNumber(Number(mean.toPrecision(5)));

const NOTHING: Drawable = { x: [], y: [], gaps: [] };

export function Chart({ label, points, summaries, shades, rangeMs, revision, limits }: ChartProps): VNode {
  const host = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const [dark, setDark] = useState(darkScheme.matches);
  const [figures, setFigures] = useState<PlotFigures | null>(null);
  const refresh = useRef<() => void>(() => {});
  const current = useRef({ points, summaries, shades, limits });
  current.current = { points, summaries, shades, limits };

  useEffect(() => {
    const onChange = (): void => setDark(darkScheme.matches);
    darkScheme.addEventListener('change', onChange);
    return () => darkScheme.removeEventListener('change', onChange);
  }, []);

  // The colours are read anew when the scheme changes
  useEffect(() => {
    const element = host.current;
    if (element === null) return;
    let shown = NOTHING;
    let thinned: readonly Summary[] = [];
    let window: [number, number] = [0, 1];
    const plot = new uPlot(
      chartOptions(element, {
        window: () => window,
        gaps: () => shown.gaps,
        summaries: () => thinned,
        shades: () => current.current.shades(),
        limits: () => current.current.limits,
        onCursor: (at, index) => {
          if (readout.current === null) return;
          readout.current.textContent = at === null ? '' : wordsAt(shown, thinned, at, index);
        },
      }),
      [[], []],
      element,
    );
    const draw = (): void => {
      const now = serverNow();
      window = [(now - rangeMs) / 1_000, now / 1_000];
      const drawn = drawable(current.current.points(), now - rangeMs, now);
      thinned = summariesWithin(current.current.summaries(), now - rangeMs, now);
      shown = { ...drawn, gaps: outside(drawn.gaps, spansOf(thinned)) };
      // Without any reading uPlot would draw no axes for the band either.
      plot.setData(shown.x.length > 0 ? [shown.x, shown.y] : [window, [null, null]]);
      setFigures(figuresOf(shown.y, thinned));
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
    figures === null
      ? 'No reading in this range'
      : `${figures.count} readings, lowest ${formatNumber(figures.min)}, mean ${formatMean(figures.mean)}, highest ${formatNumber(figures.max)}`;
  return html`<figure class="chart">
    <div class="plot" ref=${host} role="img" aria-label="${label}: ${words}">
      ${figures === null ? html`<p class="plot-empty">No reading in this range</p>` : null}
    </div>
    <figcaption>
      ${
        figures === null
          ? null
          : html`<dl class="summary">
              <div><dt>lowest</dt><dd>${formatNumber(figures.min)}</dd></div>
              <div><dt>mean</dt><dd>${formatMean(figures.mean)}</dd></div>
              <div><dt>highest</dt><dd>${formatNumber(figures.max)}</dd></div>
              <div><dt>readings</dt><dd>${figures.count}</dd></div>
              ${figures.thinned === 0 ? null : html`<div><dt>of them thinned</dt><dd>${figures.thinned}</dd></div>`}
            </dl>`
      }
      <p class="readout" ref=${readout} aria-hidden="true"></p>
    </figcaption>
  </figure>`;
}

/** A reading, or where there is none of its own what a summary says of that moment. */
function wordsAt(shown: Drawable, thinned: readonly Summary[], at: number, index: number | null): string {
  const now = serverNow();
  const readAt = index === null ? undefined : shown.x[index];
  const value = index === null ? undefined : shown.y[index];
  const summary = summaryAt(thinned, at);
  if (
    summary !== null &&
    (readAt === undefined || readAt * 1_000 < summary.from || readAt * 1_000 >= summary.to)
  ) {
    const { from, to, min, mean, max, count } = summary;
    const values = `${formatNumber(min)} to ${formatNumber(max)}, mean ${formatMean(mean)}`;
    return `${formatTime(from, now)} to ${formatTime(to, now)}   ${values} of ${formatCount(count)}`;
  }
  if (readAt === undefined || value == null) return '';
  return `${formatTime(readAt * 1_000, now)}   ${formatNumber(value)}`;
}

type Source = {
  readonly window: () => [number, number];
  readonly gaps: () => Drawable['gaps'];
  readonly summaries: () => readonly Summary[];
  readonly shades: () => readonly Shade[];
  readonly limits: () => readonly number[];
  /** @param at milliseconds since 1970; `null` when it points at nothing */
  readonly onCursor: (at: number | null, index: number | null) => void;
};

function chartOptions(element: HTMLElement, source: Source): uPlot.Options {
  const colours = readColours();
  const patterns = makePatterns(colours);
  const family = getComputedStyle(document.body).fontFamily;
  const font = `12px ${family}`;
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
    scales: {
      x: { time: true, range: () => source.window() },
      y: { range: (_, min, max) => rangeWith(source.summaries(), min, max) },
    },
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
      drawClear: [
        plot => paintGaps(plot, source.gaps(), colours),
        plot => paintShades(plot, source.shades(), colours, patterns),
        plot => paintSummaries(plot, source.summaries(), colours),
      ],
      draw: [
        plot => paintLimits(plot, source.limits(), colours),
        plot =>
          paintGapWords(
            plot,
            source.gaps(),
            source.shades(),
            colours,
            `${12 * devicePixelRatio}px ${family}`,
          ),
      ],
      setCursor: [
        plot => {
          const { left = -1, idx } = plot.cursor;
          source.onCursor(left < 0 ? null : plot.posToVal(left, 'x') * 1_000, idx ?? null);
        },
      ],
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
