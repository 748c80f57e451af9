-- What clients do not tell, so that rules of waste say nothing of their calls.
WITH told AS (
  SELECT
    client,
    count(*) AS calls,
    count(*) FILTER (human_turn IS NULL) AS no_human_turn,
    count(*) FILTER (edits IS NULL) AS no_edits,
    count(*) FILTER (tool_calls IS NULL) AS no_tool_calls,
    count(*) FILTER (request_hash IS NULL) AS no_request_hash,
    count(*) FILTER (prefix_hash IS NULL) AS no_prefix_hash,
    count(*) FILTER (action_hash IS NULL) AS no_action_hash
  FROM calls
  WHERE started_at >= $from AND started_at < $to AND ($team IS NULL OR team_id = $team)
    AND result = 'completed' AND usage_source IS DISTINCT FROM 'none'
  GROUP BY client
)
SELECT
  *,
  list_filter([
    CASE WHEN no_request_hash = told.calls THEN 'W01 W02 W05' END,
    CASE WHEN no_prefix_hash = told.calls THEN 'W06 W07' END,
    CASE WHEN no_action_hash = told.calls THEN 'W03' END,
    CASE WHEN no_edits = told.calls THEN 'W08 W12' END,
    CASE WHEN no_tool_calls = told.calls THEN 'W09 W11' END,
    CASE WHEN no_human_turn = told.calls THEN 'W12 W13' END
  ], lambda silent: silent IS NOT NULL) AS silent_rules
FROM told
ORDER BY told.calls DESC, client
