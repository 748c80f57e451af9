-- Calls, the latest first, with what they cost and what they were for. One row per call.
SELECT
  started_at, call_id, team_id, coalesce(response_model, request_model) AS model, client, tickets, ticket_source, task_id,
  purpose, result, input_tokens, output_tokens, list_cost_usd, price_status, usage_source, duration_ms
FROM calls
WHERE started_at >= $from AND started_at < $to
  AND ($team IS NULL OR team_id = $team)
  AND ($model IS NULL OR coalesce(response_model, request_model) = $model)
  AND ($provider IS NULL OR provider = $provider)
  AND ($client IS NULL OR coalesce(client, '(none)') = $client)
  AND ($repo IS NULL OR repo = $repo)
  AND ($key IS NULL OR key_id = $key)
  AND ($purpose IS NULL OR coalesce(purpose, '(none)') = $purpose)
  AND ($task IS NULL OR task_id = $task)
  AND ($ticket_source IS NULL OR ticket_source = $ticket_source)
  AND ($price_status IS NULL OR price_status = $price_status)
  AND ($usage_source IS NULL OR list_contains(string_split($usage_source, ','), usage_source))
  AND ($result IS NULL OR result = $result)
  AND CASE $for
    WHEN 'ticket' THEN len(tickets) > 0
    WHEN 'overhead' THEN len(tickets) = 0 AND purpose IS NOT NULL
    WHEN 'nothing' THEN len(tickets) = 0 AND purpose IS NULL
    ELSE true
  END
ORDER BY started_at DESC, call_id
