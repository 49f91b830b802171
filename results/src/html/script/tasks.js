// The tables of tasks, and the records behind their numbers.
'use strict';

const status = row => el('span', {class: row === 'ok' ? null : row === 'not-run' ? 'none' : 'bad'}, words(row));
const file = row => row < data.cells ? `cells.csv row ${row + 1}` : `breakdowns.csv row ${row - data.cells + 1}`;
const run = row => data.provenance.run[record.run(row)]?.folder ?? '';

/** Columns of a table of records; `row` gives the record of the table's row. */
function recordHeads(row = at => at) {
  const of = (head, name, more) => ({head, key: at => record[name](row(at)), ...more});
  const number = {number: true};
  return [
    {head: 'row', key: at => row(at), text: at => file(row(at)), number: true},
    {head: 'architecture', key: at => record.checkpoint(row(at)) || record.architecture(row(at))},
    of('task', 'task'), of('length', 'eval_length', number), of('part', 'label'), of('seed', 'seed', number),
    {...of('status', 'status'), cell: at => status(record.status(row(at)))}, of('reason', 'reason'),
    of('samples', 'samples', number), of('correct', 'correct', number), of('value', 'value', number),
    of('low', 'value_low', number), of('high', 'value_high', number), of('interval', 'interval'),
    {head: 'run', key: at => run(row(at))}, of('examples', 'split'), of('options', 'options'), of('task options', 'task_options'),
    of('trained at', 'train_length', number), of('training lengths', 'train_distribution'), of('steps', 'train_steps', number), of('learning rate', 'learning_rate', number),
    of('seconds', 'seconds', number), of('state bytes', 'state_bytes', number), of('device', 'device'), of('unit', 'unit'),
  ];
}

/** Opens the records that a point is made of. */
function openOrigin(task, curve, at) {
  const rows = recordsOf(at);
  place('origin-head').textContent = `${curve.name} on ${task.task} at ${point.length(at)} tokens`;
  const said = [
    point.value(at) === null ? words(point.status(at)) : `${task.metric}: ${reading(at)}`,
    many(point.seeds(at), 'seed') + ' measured', point.not_ok(at) > 0 && `${point.not_ok(at)} not`,
    point.each(at) && `each seed: ${point.each(at)}`, point.samples(at) !== null && many(point.samples(at), 'sample'),
    `made of ${many(rows.length, 'row')} of ${rows.every(row => row < data.cells) ? 'cells' : 'breakdowns'}.csv`,
  ];
  place('origin-words').textContent = said.filter(Boolean).join('; ') + '.';
  const told = head => rows.some((_, row) => !['', null].includes(head.key(row)));
  const heads = recordHeads(row => rows[row]).filter(told);
  place('origin-rows').replaceChildren(table({name: 'Rows of this number', heads, count: rows.length}).element);
  place('origin').showModal();
}

/** A point's value with its interval, or how it ended. */
const reading = at => point.value(at) === null ? words(point.status(at)) : `${point.value(at)} ${point.interval(at)}`.trim();

/** A value as a button that opens its records. */
function valueButton(task, curve, at, attributes) {
  const value = point.value(at), its = point.status(at);
  const look = value !== null ? (point.best(at) ? 'best' : '') : its === 'not-run' ? 'none' : 'bad';
  return el('button', {type: 'button', class: `value ${look}`, title: 'its rows', click: () => openOrigin(task, curve, at), ...attributes},
    value ?? words(its), value !== null && point.interval(at) ? el('small', null, point.interval(at)) : null);
}

/** The points of a curve by their lengths. */
function byLength(curve) {
  const places = new Map();
  for (let at = curve.points.start; at < curve.points.end; at++) places.set(point.length(at), at);
  return places;
}

function taskTable(task) {
  const places = task.curves.map(byLength);
  const at = (row, length) => places[row].get(length);
  const number = (row, length) => at(row, length) === undefined || point.value(at(row, length)) === null
    ? null : parseFloat(point.value(at(row, length)));
  const heads = [
    {head: 'model', key: row => task.curves[row].name, row: true},
    ...task.lengths.map((length, index) => ({
      head: task.heads[index], title: `${length} tokens`, number: true, key: row => number(row, length),
      cell: row => at(row, length) === undefined ? '' : valueButton(task, task.curves[row], at(row, length)),
    })),
    ...task.ends.map((head, index) => ({
      head, number: true, key: row => task.curves[row].order[index], cell: row => task.curves[row].ends[index],
    })),
  ];
  return table({name: `Table of ${task.task}`, heads, count: task.curves.length}).element;
}

/** A map of depth and length for each model, of tasks that differ in the depth alone. */
function depthMaps({rows}) {
  const tasks = rows.map(([depth, index]) => ({depth, task: data.tasks[index]}));
  const names = [...new Set(tasks.flatMap(({task}) => task.curves.map(curve => curve.name)))];
  const lengths = [...new Set(tasks.flatMap(({task}) => task.lengths))].sort((one, other) => one - other);
  return names.map(name => el('div', null, el('h3', null, name),
    el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Map of ${name}`}, el('table', {class: 'map'},
      el('thead', null, el('tr', null, el('th', {scope: 'col'}, 'depth'), ...lengths.map(length => el('th', {scope: 'col', class: 'number'}, String(length))))),
      el('tbody', null, ...tasks.map(({depth, task}) => {
        const curve = task.curves.find(curve => curve.name === name), places = curve ? byLength(curve) : new Map();
        return el('tr', null, el('th', {scope: 'row'}, `${Math.round(1e4 * depth) / 1e2} %`),
          ...lengths.map(length => el('td', null, places.has(length) ? shaded(task, curve, places.get(length)) : '')));
      }))))));
}

/** A value on a colour from light to dark, as in the map's figure. */
function shaded(task, curve, at) {
  const button = valueButton(task, curve, at);
  if (point.value(at) !== null) {
    const share = parseFloat(point.value(at)) / 100;
    const [red, green, blue] = [[247, 8], [251, 48], [255, 107]].map(([none, all]) => Math.round(none + (all - none) * share));
    const ink = share > .65 ? '#ffffff' : '#000000'; // either stands out by 4.5 to 1
    button.style.backgroundColor = `rgb(${red}, ${green}, ${blue})`;
    button.style.color = ink;
    button.querySelector('small')?.remove();
  }
  return button;
}
