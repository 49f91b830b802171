// The page: its parts in their order, filled when they come near.
'use strict';

const measured = task => task.curves.some(curve => [...byLength(curve).values()].some(at => point.value(at) !== null));

function fillTask(section, task) {
  section.append(...task.caption.slice(0, 1).map(text => el('p', {class: 'small'}, text)));
  if (measured(task)) section.append(figure(task));
  else section.append(el('p', {class: 'bad'}, 'Nothing was measured here: the table says how it ended, and the rows behind its cells why.'));
  if (task.across === 'length') section.append(taskTable(task), el('p', {class: 'small'}, `${task.caption.slice(1).join(' ')} Press a number to see the rows that it is made of.`));
  section.append(...task.notes.map(note => el('p', {class: 'small'}, note)));
}

/** Sections are filled when they come near, so that a page of a thousand tasks opens at once. */
const near = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => fill(entry.target)), {rootMargin: '800px'});
const waiting = new Map();
function fill(section) {
  near.unobserve(section);
  const make = waiting.get(section);
  if (!waiting.delete(section)) return;
  section.style.minHeight = '';
  make(section);
}
addEventListener('beforeprint', () => [...waiting.keys()].forEach(fill));

function section(title, options, alone, make) {
  const id = `part-${place('tasks').childElementCount}`;
  const part = el('section', {class: 'task', 'aria-labelledby': id}, el('h2', {id}, title), options ? el('p', {class: 'options'}, options.replaceAll(',', ', ')) : null);
  part.style.minHeight = '30rem';
  waiting.set(part, make);
  place('tasks').append(part);
  near.observe(part);
  place('contents').append(el('li', null, el('a', {href: `#${id}`}, alone ? title : `${title} (${options.replaceAll(',', ', ')})`)));
}

function provenance() {
  const fact = (name, value, code) => value ? [el('dt', null, name), el('dd', null, code ? el('code', null, value) : value)] : [];
  const runs = data.provenance.run.map(its => el('div', null, el('h3', null, its.folder), el('dl', null,
    ...fact('suite', its.suite), ...fact('command', its.command, true), ...fact('run', its.run_id, true), ...fact('device', its.device), ...fact('machine', its.machine),
    ...fact('Longhaul', its.longhaul && `${its.longhaul}, plugin ABI ${its.plugin_api}`),
    ...fact('results of another tool', its.foreign), ...fact('sha256 of the file', its.sha256),
    ...(its.run_id || its.foreign ? [] : fact('run.toml', 'could not be read')))));
  const heads = [['plugin', its => its.name], ['version', its => its.version], ['architectures', its => its.architectures.join(', ')], ['sha256 of its file', its => its.sha256]];
  const plugins = table({name: 'Plugins', count: data.plugins.length,
    heads: heads.map(([head, of]) => ({head, key: row => of(data.plugins[row])}))});
  place('provenance').append(
    el('p', null, `Made by Longhaul ${data.provenance.longhaul} of the records of ${many(data.provenance.run.length, 'run')}; report.toml has the same to read by program.`),
    ...runs, el('h3', null, 'Plugins'), plugins.element);
}

function start() {
  const counts = new Map();
  for (let row = 0; row < data.cells; row++) counts.set(record.status(row), (counts.get(record.status(row)) ?? 0) + 1);
  const statuses = [...new Set([...counts.keys(), ...(data.cells < RECORDS ? [record.status(data.cells)] : [])])];
  const records = table({name: 'Records', heads: recordHeads(), count: RECORDS, filterable: true,
    filters: [{label: 'status', options: statuses, key: record.status}]});
  place('records').append(records.element);
  const models = new Set(data.plugins.flatMap(plugin => plugin.architectures));
  const tasks = data.tasks.filter(task => task.across === 'length');
  place('made').textContent = [many(tasks.length, 'task'), many(models.size, 'architecture'), many(data.provenance.run.length, 'run'), many(data.cells, 'cell')].join(', ');
  place('statuses').append('Cells: ', ...statuses.filter(its => counts.has(its)).flatMap(its => [
    el('button', {type: 'button', class: its === 'ok' ? null : its === 'not-run' ? 'none' : 'bad',
      click: () => { records.select(0, its); place('records-head').scrollIntoView(); }}, `${counts.get(its).toLocaleString('en')} ${words(its)}`), ' ']));
  place('notes').append(...data.provenance.notes.map(note => el('li', null, note)));
  for (const task of data.tasks.filter(task => task.across !== 'depth')) {
    const alone = data.tasks.filter(other => other.task === task.task && other.across === task.across).length === 1;
    section(task.across === 'position' ? `${task.task} by position` : task.task, task.options, alone, part => fillTask(part, task));
  }
  for (const map of data.depths) {
    section(`${map.task} by depth`, map.options, data.depths.length === 1, part => part.append(el('p', {class: 'small'}, 'Accuracy in % by depth of the needle and length in tokens.'), ...depthMaps(map)));
  }
  for (const id of ['records', 'provenance']) place('contents').append(el('li', null, el('a', {href: `#${id}-head`}, id === 'records' ? 'Records' : 'Provenance')));
  provenance();
  document.documentElement.dataset.ready = 'yes';
}
start();
