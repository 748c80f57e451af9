-- Strange tickets of branches are candidates again.
UPDATE looked
SET
  rule = 'taken_back', tickets = judged.kept, source = CASE WHEN len(judged.kept) > 0 THEN source ELSE 'none' END,
  candidates = list_concat(candidates, list_filter(judged.taken, lambda taken: NOT list_contains(candidates, taken)))
FROM (
  SELECT
    call_id,
    coalesce(list(named.ticket ORDER BY position) FILTER (strange.ticket IS NULL), []) AS kept,
    list(concat('branch:', named.ticket) ORDER BY position) FILTER (strange.ticket IS NOT NULL) AS taken
  FROM (
    SELECT call_id, unnest(tickets) AS ticket, generate_subscripts(tickets, 1) AS position
    FROM looked WHERE source = 'branch'
  ) AS named LEFT JOIN strange USING (ticket)
  GROUP BY call_id
  HAVING len(taken) > 0
) AS judged
WHERE looked.call_id = judged.call_id
