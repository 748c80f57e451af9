-- W04: calls that failed, or whose answer was withheld, and were billed. One row per team, model, reason and UTC day.
-- @kind: safety when the model or its provider refused to answer: nobody's fault
-- @group_key: Team, model, reason and day
-- @ticket_id: Always NULL
-- @calls: The calls, with their cost
-- @numbers: The reason, and how many
-- @sentence: The same in words
WITH failed AS (
  SELECT
    call_id, started_at, on_day, team_id, model, cost_nano,
    coalesce(finish IN (
      'content_filter', 'refusal', 'safety', 'prohibited_content', 'blocklist', 'recitation', 'guardrail_intervened',
      'content_filtered'
    ), false) AS is_safety,
    CASE
      WHEN is_safety OR finish = 'malformed_function_call' THEN finish
      WHEN status >= 400 THEN concat('status ', status)
      WHEN result = 'upstream_error' THEN result
    END AS reason
  FROM waste_calls
  WHERE is_counted AND cost_nano > 0
)
SELECT
  CASE WHEN is_safety THEN 'safety' END AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), reason, on_day) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: cost_nano} ORDER BY started_at, call_id) AS calls,
  to_json({reason: reason, failed: count(*)}) AS numbers,
  format('{} calls on {} were billed though they ended with: {}.', count(*), on_day, reason) AS sentence
FROM failed
WHERE reason IS NOT NULL
GROUP BY team_id, model, reason, is_safety, on_day
