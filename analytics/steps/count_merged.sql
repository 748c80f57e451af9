-- What became of the rows that came in.
SELECT
  count(*) FILTER (WHERE what = 'new') AS new_rows,
  count(*) FILTER (WHERE what = 'changed') AS changed_rows,
  count(*) FILTER (WHERE what = 'same') AS same_rows,
  count(*) FILTER (WHERE what = 'older') AS older_rows,
  count(*) FILTER (WHERE what = 'gone') AS gone_rows
FROM merged
