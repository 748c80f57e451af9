-- So the calls of the same task have no ticket that was carried over from there, unless another call of it names it.
UPDATE looked
SET rule = 'taken_back', tickets = [], source = 'none'
WHERE source = 'task' AND call_id IN (
  SELECT carried.call_id
  FROM (SELECT call_id, kind, who, id, unnest(tickets) AS ticket FROM links WHERE source = 'task') AS carried
    SEMI JOIN strange USING (ticket)
    SEMI JOIN (
      SELECT kind, who, id, replace(unnest(candidates), 'branch:', '') AS ticket FROM links WHERE len(candidates) > 0
    ) AS taken USING (kind, who, id, ticket)
    ANTI JOIN (
      SELECT kind, who, id, unnest(tickets) AS ticket FROM links WHERE source NOT IN ('task', 'none')
    ) AS named USING (kind, who, id, ticket)
)
