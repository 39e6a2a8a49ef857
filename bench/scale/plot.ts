/** The share of nodes that have an update, over time: one curve per fleet, as SVG. */
import type { FleetReport } from './measure.js';

const WIDTH = 720;
const HEIGHT = 400;
const LEFT = 56;
const RIGHT = 24;
const TOP = 40;
const BOTTOM = 48;
const MS_MAX = 1_000;
const MS_STEP = 100;
const SHARE_STEP = 0.2;
const BAR_MS = 500;
const COLORS = ['#0072b2', '#d55e00', '#009e73'];

function x(ms: number): number {
  return LEFT + (Math.min(ms, MS_MAX) / MS_MAX) * (WIDTH - LEFT - RIGHT);
}

function y(share: number): number {
  return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
}

function text(atX: number, atY: number, label: string, anchor = 'middle', color = '#333'): string {
  return `<text x="${atX.toFixed(1)}" y="${atY.toFixed(1)}" text-anchor="${anchor}" fill="${color}">${label}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, style: string): string {
  const [a, b, c, d] = [x1, y1, x2, y2].map((value) => value.toFixed(1));
  return `<line x1="${a}" y1="${b}" x2="${c}" y2="${d}" ${style}/>`;
}

function axes(): string[] {
  const out: string[] = [];
  for (let ms = 0; ms <= MS_MAX; ms += MS_STEP) {
    out.push(line(x(ms), y(0), x(ms), y(1), 'stroke="#eee"'));
    out.push(text(x(ms), y(0) + 18, `${ms}`));
  }
  for (let share = 0; share <= 1.001; share += SHARE_STEP) {
    out.push(line(x(0), y(share), x(MS_MAX), y(share), 'stroke="#eee"'));
    out.push(text(LEFT - 8, y(share) + 4, `${Math.round(share * 100)} %`, 'end'));
  }
  out.push(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, 'ms after the write'));
  out.push(line(x(BAR_MS), y(0), x(BAR_MS), y(1), 'stroke="#999" stroke-dasharray="4 3"'));
  return out;
}

export function plot(reports: readonly FleetReport[]): string {
  const curves: string[] = [];
  for (const [i, { plan, curve }] of reports.entries()) {
    const color = COLORS[i % COLORS.length]!;
    const points = curve.map(([ms, share]) => `${x(ms).toFixed(1)},${y(share).toFixed(1)}`).join(' ');
    curves.push(`<polyline points="${points}" fill="none" stroke="${color}" stroke-width="2"/>`);
    curves.push(
      text(x(MS_MAX) - 8, y(0.3) + i * 18, `${plan.nodes.toLocaleString('en')} nodes`, 'end', color),
    );
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    '<title>Share of nodes that have an update, over time</title>',
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    text(WIDTH / 2, 22, 'Share of nodes that have written an update'),
    ...axes(),
    ...curves,
    '</svg>',
    '',
  ].join('\n');
}
