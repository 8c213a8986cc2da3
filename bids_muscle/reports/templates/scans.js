'use strict';
// What the cohort page and the review page share: the scans, filters, tables in pages of fifty.
// Text of the dataset is only ever set as textContent or as a value, never as markup.
const Scans = (() => {
  const PAGE = 50;
  const data = JSON.parse(document.getElementById('data').textContent);
  const { scans } = data;
  const SEXES = { F: 'women', M: 'men' };
  const $ = (id) => document.getElementById(id);
  // One collator: text that asks for a new one at each comparison is ten times slower.
  const { compare: order } = new Intl.Collator('en', { numeric: true });
  const isText = (value) => typeof value === 'string';
  scans.forEach((scan, place) => {
    scan.place = place;
    scan.muscles = scan.rows.map((row) => data.muscles[row].name);
  });

  function element(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text) node.textContent = text;
    return node;
  }

  function link(text, address) {
    const node = element('a', '', text);
    node.href = address;
    return node;
  }

  function format(value) {
    if (value === null || value === undefined) return 'n/a';
    return isText(value) ? value : String(Number(value.toPrecision(3)));
  }

  // What is not there comes last in either direction.
  function compare(get, sign) {
    return (one, two) => {
      const [a, b] = [get(one), get(two)].map((value) => value ?? null);
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (isText(a) ? order(a, b) : a - b) || one.place - two.place;
    };
  }

  // Filters: a list of choices for each property in which the scans differ.
  const RATINGS = ['unrated', 'pass', 'artefact', 'fail'];
  const PROPERTIES = {
    series: { title: 'Series', of: (scan) => [data.series[scan.series]] },
    site: { title: 'Site', of: (scan) => [scan.site || 'n/a'] },
    sex: { title: 'Sex', of: (scan) => [SEXES[scan.sex] || 'n/a'] },
    light: { title: 'Result', of: (scan) => [scan.light], names: { ok: 'complete' } },
    flag: { title: 'Remark', of: (scan) => scan.flags.map((flag) => data.flags[flag]), some: true },
    labels: { title: 'Outlines by', of: (scan) => (scan.labels ? [scan.labels] : []) },
    used: { title: 'Counts', of: (scan) => [scan.excluded ? 'excluded' : 'yes'] },
    rating: { title: 'Rating', names: { unrated: 'not rated' } },
  };

  function filters(bar, names, ratingOf, onChange) {
    const chosen = [];
    for (const name of names) {
      const property = PROPERTIES[name];
      const of = property.of || ((scan) => [ratingOf(scan) || 'unrated']);
      const values = new Set(scans.flatMap(of));
      if (values.size > 1 || (property.some && values.size) || name === 'rating') {
        const select = element('select');
        select.id = `filter-${name}`;
        select.append(new Option('all', ''));
        const choices = name === 'rating' ? RATINGS : [...values];
        if (name !== 'rating' && name !== 'flag') choices.sort(order);
        for (const value of choices) select.append(new Option((property.names || {})[value] || value, value));
        const label = element('label', '', `${property.title} `);
        label.append(select);
        bar.append(label);
        chosen.push({ select, of });
        select.addEventListener('change', onChange);
      }
    }
    const column = columnFilter(bar, onChange);
    const search = element('input');
    search.type = 'search';
    search.id = 'filter-text';
    search.size = 14;
    search.autocomplete = 'off';
    const label = element('label', '', 'Name ');
    label.append(search);
    bar.append(label);
    search.addEventListener('input', onChange);
    const reset = element('button', '', 'All scans');
    reset.type = 'button';
    reset.id = 'filter-reset';
    reset.addEventListener('click', () => {
      for (const { select } of chosen) select.value = '';
      search.value = '';
      column.reset();
      onChange();
    });
    bar.append(reset);
    return (scan) => scan.scan.toLowerCase().includes(search.value.trim().toLowerCase())
      && chosen.every(({ select, of }) => !select.value || of(scan).includes(select.value))
      && column.fits(scan);
  }

  // One column of participants.tsv: its groups to choose from, or the ends of its numbers.
  function columnFilter(bar, onChange) {
    if (!data.columns.length) return { fits: () => true, reset: () => {} };
    const which = element('select');
    which.id = 'filter-column';
    which.append(new Option('none', ''), ...data.columns.map(({ name }, k) => new Option(name, k)));
    const level = element('select');
    level.id = 'filter-level';
    level.setAttribute('aria-label', 'Group');
    const [from, to] = ['from', 'to'].map((name) => {
      const input = element('input');
      input.type = 'number';
      input.step = 'any';
      input.id = `filter-${name}`;
      input.placeholder = name;
      input.setAttribute('aria-label', name);
      return input;
    });
    const label = element('label', '', 'Column ');
    label.append(which);
    bar.append(label, level, from, to);
    const of = (scan) => scan.columns[which.value];
    function choose() {
      const column = which.value === '' ? null : data.columns[which.value];
      level.hidden = !column || column.kind !== 'groups';
      from.hidden = to.hidden = !column || column.kind !== 'number';
      level.replaceChildren(new Option('all', ''));
      from.value = to.value = '';
      if (column) for (const name of [...column.levels, 'n/a']) level.append(new Option(name, name));
    }
    which.addEventListener('change', () => { choose(); onChange(); });
    for (const input of [level, from, to]) input.addEventListener('input', onChange);
    choose();
    return {
      reset: () => { which.value = ''; choose(); },
      fits: (scan) => {
        if (which.value === '') return true;
        if (level.value) return (of(scan) ?? 'n/a') === level.value;
        const ends = [[from, 1], [to, -1]].filter(([input]) => input.value !== '');
        return ends.every(([input, sign]) => of(scan) !== null && sign * (of(scan) - Number(input.value)) >= 0);
      },
    };
  }

  // A table that is sorted by its headings. A column has a title, `get` for its value, and may
  // have `show` for the node in its place and `number` for figures.
  function table(root, caption, columns, first = 0, descending = false) {
    let rows = [];
    let page = 0;
    let by = first;
    let sign = descending ? -1 : 1;
    const box = element('div', 'scroll');
    box.tabIndex = 0;
    box.setAttribute('role', 'region');
    box.setAttribute('aria-label', caption);
    const grid = element('table');
    const body = element('tbody');
    const head = element('tr');
    const cells = columns.map((column, place) => {
      const cell = element('th', column.number ? 'number' : '');
      cell.scope = 'col';
      const button = element('button', 'sort', column.title);
      button.type = 'button';
      cell.addEventListener('click', () => {
        sign = by === place ? -sign : 1;
        by = place;
        page = 0;
        draw();
      });
      cell.append(button);
      head.append(cell);
      return cell;
    });
    const top = element('thead');
    top.append(head);
    grid.append(top, body);
    box.append(grid);
    const pager = element('div', 'strip bar');
    const where = element('span');
    where.setAttribute('role', 'status');
    const [previous, next] = [['Previous page', -1], ['Next page', 1]].map(([text, step]) => {
      const button = element('button', '', text);
      button.type = 'button';
      button.addEventListener('click', () => { page += step; draw(); });
      return button;
    });
    pager.append(previous, where, next);
    const none = element('p', 'soft', 'None.');
    root.replaceChildren(box, none, pager);

    function draw() {
      const ordered = [...rows].sort(compare(columns[by].get, sign));
      page = Math.max(Math.min(page, Math.ceil(rows.length / PAGE) - 1), 0);
      const part = ordered.slice(page * PAGE, (page + 1) * PAGE);
      body.replaceChildren(...part.map((row) => {
        const line = element('tr');
        columns.forEach((column, place) => {
          const cell = element(place ? 'td' : 'th', column.number ? 'number' : column.kind || '');
          if (!place) cell.scope = 'row';
          if (column.show) cell.append(column.show(row)); else cell.textContent = format(column.get(row));
          line.append(cell);
        });
        return line;
      }));
      cells.forEach((cell, place) => {
        if (place === by) cell.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
        else cell.removeAttribute('aria-sort');
      });
      pager.hidden = rows.length <= PAGE;
      box.hidden = !rows.length;
      none.hidden = !box.hidden;
      where.textContent = `${page * PAGE + 1} to ${page * PAGE + part.length} of ${rows.length}`;
      previous.disabled = page === 0;
      next.disabled = (page + 1) * PAGE >= rows.length;
    }

    return (some) => {
      rows = some;
      page = 0;
      draw();
    };
  }

  return { $, PAGE, SEXES, compare, data, element, filters, format, isText, link, order, scans, table };
})();
