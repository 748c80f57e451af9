-- Calls with evidence of their own in the tasks of those without a ticket.
INSERT INTO looked BY NAME
WITH wanting AS MATERIALIZED (
  SELECT DISTINCT kind, who, id FROM links WHERE len(tickets) = 0 OR source = 'task'
)
SELECT *, false AS in_span
FROM span_calls ANTI JOIN looked USING (call_id)
WHERE len(tickets) > 0 AND source NOT IN ('task', 'none') AND (
  (who, task_id) IN (SELECT (who, id) FROM wanting WHERE kind = 'task')
  OR (who, session_id) IN (SELECT (who, id) FROM wanting WHERE kind = 'session')
)
