// Figures: a chart by uPlot and a button for each curve, which says its value where the chart is pointed at.
'use strict';

const dark = matchMedia('(prefers-color-scheme: dark)');
const themed = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A curve's colour; on dark paper nearer to white, and black is white. */
function inked(colour, alpha = 1) {
  if (dark.matches && colour === '#000000') colour = '#ffffff';
  const channel = at => parseInt(colour.slice(at, at + 2), 16);
  const [red, green, blue] = [1, 3, 5].map(channel).map(value => dark.matches ? Math.round(255 - .6 * (255 - value)) : value);
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

/** What a figure can show: its name, number and text of a point, and the ends of the interval. */
function measures(task) {
  const plain = (name, field, by, unit) => ({
    name, number: at => point[field](at) === null ? null : point[field](at) / by,
    text: at => point[field](at) === null ? '-' : `${+(point[field](at) / by).toPrecision(3)}${unit}`,
  });
  const ends = at => point.interval(at) ? point.interval(at).slice(1, -1).split(', ').map(Number) : [null, null];
  const main = {
    name: task.metric, main: true, text: reading, ends,
    number: at => point.value(at) === null ? null : parseFloat(point.value(at)),
  };
  if (task.across === 'position') return [main];
  const others = [
    plain('retention in %', 'retention', .01, ' %'), plain('tokens read a second', 'tokens_per_second', 1, ''),
    plain('peak memory in MiB', 'peak_memory_bytes', 1 << 20, ' MiB'), plain('state in KiB', 'state_bytes', 1 << 10, ' KiB'),
  ];
  const known = measure => task.curves.some(curve => [...byLength(curve).values()].some(at => measure.number(at) !== null));
  return [main, ...others.filter(known)];
}

/** A sample of a curve's line with its marker. */
function sample({colour, dashes, marker}) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 44 16');
  svg.setAttribute('aria-hidden', 'true');
  for (const attributes of [
    {d: 'M2 8H42', fill: 'none', stroke: inked(colour), 'stroke-width': 1.8, 'stroke-dasharray': dashes},
    {d: marker, transform: 'translate(22 8)', fill: inked(colour)},
  ]) {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    for (const [name, value] of Object.entries(attributes)) path.setAttribute(name, value);
    svg.append(path);
  }
  return svg;
}

/** The series of a curve: its values, and the lower and upper ends of their intervals. */
const seriesOf = curve => [1, 2, 3].map(place => 3 * curve + place);

/**
 * Where the points of each curve are drawn, in pixels of the canvas: side by side at each length, and of values that
 * coincide each a little above the one before, so that no curve hides another. Hidden ones keep their places.
 */
function spread(u, count) {
  const scale = devicePixelRatio, xs = u.data[0].map(x => u.valToPos(x, 'x', true));
  const gap = Math.min(u.bbox.width / 3, ...xs.slice(1).map((x, at) => x - xs[at]));
  const aside = Math.min(.55 * gap / count, 6 * scale);
  const places = Array.from({length: count}, (_, curve) => xs.map((x, at) => {
    const value = u.data[3 * curve + 1][at];
    return value === null ? null : {x: x + (curve - (count - 1) / 2) * aside, y: u.valToPos(value, 'y', true), up: 0};
  }));
  xs.forEach((_, at) => {
    const column = places.map(of => of[at]).filter(Boolean).sort((one, other) => one.y - other.y);
    for (let start = 0, end; start < column.length; start = end) {
      for (end = start + 1; end < column.length && column[end].y - column[end - 1].y < 1.5 * scale;) end++;
      const last = end - start - 1, step = Math.min(12 / last, 2.5) * scale;
      for (let rank = 0; last > 0 && rank <= last; rank++) column[start + rank].up = (rank - last / 2) * step;
    }
  });
  places.flat().forEach(place => { if (place) place.y += place.up; });
  return places;
}

/** A curve's line through its places; where a value is missing it breaks. */
function line(places) {
  const stroke = new Path2D();
  places.forEach((place, at) => place && (places[at - 1] ? stroke.lineTo(place.x, place.y) : stroke.moveTo(place.x, place.y)));
  return {stroke, fill: null, clip: null, band: null, gaps: null, flags: 1};
}

/** Dashed lines for chance and training lengths, with their names. `view` is a figure's, see there. */
function guides({task, measure}, u) {
  const {ctx, bbox: {left, top, width, height}} = u, scale = devicePixelRatio;
  const line = (places, dashes) => {
    ctx.setLineDash(dashes.map(dash => dash * scale));
    ctx.beginPath();
    places.forEach((place, index) => index ? ctx.lineTo(...place) : ctx.moveTo(...place));
    ctx.stroke();
  };
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = themed('--soft');
  ctx.font = `${12 * scale}px system-ui, sans-serif`;
  ctx.lineWidth = scale;
  task.trained.forEach(([length, short], index) => {
    const x = u.valToPos(Math.log2(length), 'x', true);
    line([[x, top], [x, top + height]], [4, 3]);
    const before = x > left + width / 2;
    ctx.textAlign = before ? 'right' : 'left';
    ctx.fillText(`trained at ${short}`, x + (before ? -4 : 4) * scale, top - (5 + 14 * (index % 2)) * scale);
  });
  // Chance by length, level before the first and after the last.
  const chance = measure.main ? task.chance : [];
  if (chance.length) {
    const y = value => u.valToPos(100 * value, 'y', true), last = chance.at(-1)[1];
    const inner = chance.length > 1 ? chance.map(([length, value]) => [u.valToPos(Math.log2(length), 'x', true), y(value)]) : [];
    line([[left, y(chance[0][1])], ...inner, [left + width, y(last)]], [1, 3]);
    ctx.textAlign = 'right';
    ctx.fillText(`chance ${(100 * last).toFixed(1)} %`, left + width - 2 * scale, y(last) + (last > .06 ? 14 : -5) * scale);
  }
  ctx.restore();
}

/** Markers of a curve, and a ring for each seed of several. */
function markers({task, measure, at, places}, u, series) {
  if ((series - 1) % 3 !== 0) return;
  const {ctx} = u, scale = devicePixelRatio, index = (series - 1) / 3, {colour, marker} = task.curves[index];
  const shape = new Path2D(marker);
  const put = (x, y, draw) => {
    ctx.save();
    ctx.translate(x, y);
    ctx.scale(scale, scale);
    draw();
    ctx.restore();
  };
  ctx.save();
  places[index].forEach((place, length) => {
    if (!place) return;
    const several = measure.main && task.across !== 'position' && point.seeds(at(index, length)) > 1;
    ctx.strokeStyle = ctx.fillStyle = inked(colour);
    for (const row of several ? recordsOf(at(index, length)).filter(row => record.value(row) !== null) : []) {
      put(place.x, place.up + u.valToPos(record.value(row) * (task.accuracy ? 100 : 1), 'y', true), () => {
        ctx.beginPath();
        ctx.arc(0, 0, 2, 0, 7);
        ctx.stroke();
      });
    }
    ctx.strokeStyle = themed('--paper');
    put(place.x, place.y, () => {
      ctx.lineWidth = .7;
      ctx.fill(shape);
      ctx.stroke(shape);
    });
  });
  ctx.restore();
}

/** The two axes: lengths as far as they have room, and values. */
function axes({task, measure, where}) {
  const axis = {stroke: themed('--ink'), font: '12px system-ui, sans-serif', labelFont: '13px system-ui, sans-serif',
    labelSize: 20, grid: {stroke: themed('--line'), width: 1}, ticks: {stroke: themed('--line'), width: 1}};
  const heads = (u, splits) => {
    let free = -Infinity;
    return splits.map((split, index) => {
      const x = u.valToPos(split, 'x'), half = 4 * task.heads[index].length;
      if (x - half < free) return '';
      free = x + half + 8;
      return task.heads[index];
    });
  };
  const numbers = (u, splits) => splits.map(value => (+value.toPrecision(6)).toLocaleString('en'));
  return [
    {...axis, label: `${where} in tokens`, size: 30, grid: {show: false}, splits: () => task.lengths.map(Math.log2), filter: (u, splits) => splits, values: heads},
    {...axis, label: measure.name, size: 52, values: numbers, ...(measure.main && task.accuracy && {splits: () => [0, 20, 40, 60, 80, 100]})},
  ];
}

/** What uPlot is told of a figure. */
function chartOptions(view, width, read) {
  const {task, measure, hidden} = view;
  const ends = [task.lengths[0], task.lengths.at(-1), ...task.trained.map(([length]) => length)].map(Math.log2);
  const low = Math.min(...ends), high = Math.max(...ends), edge = .06 * (high - low) || 1;
  const values = (u, least, most) => !measure.main ? [0, Math.max(1.08 * (most ?? 1), 1e-9)]
    : task.accuracy ? [-3, 103] : uPlot.rangeNum(least ?? 0, most ?? 1, .1, true);
  const curves = task.curves.flatMap((curve, index) => {
    const plain = {show: !hidden.has(index), points: {show: false}}, end = {...plain, stroke: 'transparent', width: 0};
    const dash = curve.dashes === 'none' ? undefined : curve.dashes.split(' ').map(Number);
    const paths = () => line(view.places[index]);
    return [{...plain, label: curve.name, stroke: inked(curve.colour), width: 1.8, dash, paths}, end, end];
  });
  const band = (curve, index) => ({
    series: [3 * index + 3, 3 * index + 2], fill: inked(curve.colour, Math.min(.12, .6 / task.curves.length)),
  });
  return {
    width, height: width < 480 ? 300 : 350, padding: [34, 14, 0, 0],
    legend: {show: false}, focus: {alpha: .15}, cursor: {drag: {x: false, y: false}, y: false, points: {show: false}},
    scales: {x: {time: false, range: () => [low - edge, high + edge]}, y: {range: values}},
    axes: axes(view), series: [{}, ...curves], bands: task.curves.map(band),
    hooks: {drawClear: [u => { view.places = spread(u, task.curves.length); }], drawAxes: [u => guides(view, u)], drawSeries: [(u, series) => markers(view, u, series)], setCursor: [u => read(u.cursor.idx)]},
  };
}

/** The button of a curve: pressed it is drawn, and it stands out while it is pointed at. */
function curveButton(view, index) {
  const {hidden} = view;
  const focus = () => view.plot.setSeries(hidden.has(index) ? null : seriesOf(index)[0], {focus: true});
  const unfocus = () => view.plot.setSeries(null, {focus: true});
  const toggle = () => {
    if (!hidden.delete(index)) hidden.add(index);
    button.setAttribute('aria-pressed', String(!hidden.has(index)));
    view.plot.batch(() => seriesOf(index).forEach(series => view.plot.setSeries(series, {show: !hidden.has(index)})));
  };
  const button = el('button', {type: 'button', 'aria-pressed': 'true', click: toggle, mouseenter: focus, focus, mouseleave: unfocus, blur: unfocus});
  return button;
}

/** A figure with its curves' buttons. A change of colours draws it anew. */
function figure(task) {
  const where = task.across === 'position' ? 'position' : 'length', all = measures(task), places = task.curves.map(byLength);
  const at = (curve, index) => places[curve].get(task.lengths[index]);
  const of = (curve, index, field) => at(curve, index) === undefined ? null : field(at(curve, index));
  const view = {task, where, at, measure: all[0], hidden: new Set(), plot: null, places: []};
  const buttons = task.curves.map((curve, index) => curveButton(view, index));
  const chart = el('div', {class: 'chart', tabindex: 0, role: 'group', keydown: step,
    'aria-label': `${task.metric} of ${task.task} by ${where}; the left and right arrow keys read it off`});
  const heading = el('p', {class: 'small'}), spoken = el('p', {class: 'unseen', 'aria-live': 'polite'});
  const choice = el('select', {change: () => { view.measure = all[choice.selectedIndex]; draw(); }}, ...all.map(({name}) => el('option', null, name)));
  const text = (curve, index) => of(curve, index, view.measure.text) ?? 'not planned';

  function read(index) {
    const known = index !== null && index !== undefined;
    heading.textContent = known ? `At ${where} ${task.lengths[index].toLocaleString('en')}`
      : `Point at a ${where} to read it off; press a name to hide its curve`;
    task.curves.forEach((curve, place) => { buttons[place].querySelector('.reading').textContent = known ? text(place, index) : curve.said; });
  }

  function step(event) {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    event.preventDefault();
    const last = task.lengths.length - 1, now = view.plot.cursor.idx ?? (by > 0 ? -1 : last + 1);
    const index = Math.min(Math.max(now + by, 0), last);
    view.plot.setCursor({left: view.plot.valToPos(Math.log2(task.lengths[index]), 'x'), top: 10});
    const shown = task.curves.map((curve, place) => view.hidden.has(place) ? null : `${curve.name} ${text(place, index)}`);
    spoken.textContent = `${where} ${task.lengths[index]}: ${shown.filter(Boolean).join('; ')}`;
  }

  function draw() {
    view.plot?.destroy();
    const {number, ends} = view.measure;
    const series = task.curves.flatMap((curve, index) => {
      const along = field => task.lengths.map((_, place) => of(index, place, field));
      const bounds = along(ends ?? (() => [null, null])).map(pair => pair ?? [null, null]);
      return [along(number), bounds.map(([low]) => low), bounds.map(([, high]) => high)];
    });
    task.curves.forEach((curve, index) => buttons[index].replaceChildren(
      sample(curve), el('span', {class: 'name'}, curve.name), ' ', el('span', {class: 'reading'})));
    view.plot = chart.plot = new uPlot(chartOptions(view, chart.clientWidth, read), [task.lengths.map(Math.log2), ...series], chart);
    read(null);
  }

  const fit = () => view.plot ? view.plot.setSize({width: chart.clientWidth, height: view.plot.height}) : draw();
  new ResizeObserver(() => chart.clientWidth !== view.plot?.width && fit()).observe(chart);
  dark.addEventListener('change', () => view.plot && draw());
  const tools = all.length > 1 ? el('div', {class: 'tools'}, el('label', null, 'Show', choice)) : null;
  return el('figure', {class: 'figure'}, chart,
    el('div', null, tools, heading, el('ul', {class: 'series'}, ...buttons.map(button => el('li', null, button))), spoken));
}
