-- Calls, the latest first, with what they cost and what they were for. One row per call.
SELECT
  started_at, call_id, team_id, coalesce(response_model, request_model) AS model, client, tickets, ticket_source, task_id,
  purpose, result, input_tokens, output_tokens, list_cost_usd, price_status, usage_source, duration_ms
FROM calls
WHERE started_at >= $from AND started_at < $to
  AND ($team IS NULL OR coalesce(team_id, '(none)') = $team)
  AND ($model IS NULL OR coalesce(response_model, request_model, '(none)') = $model)
  AND ($provider IS NULL OR coalesce(provider, '(none)') = $provider)
  AND ($client IS NULL OR coalesce(client, '(none)') = $client)
  AND ($repo IS NULL OR coalesce(repo, '(none)') = $repo)
  AND ($key IS NULL OR coalesce(key_id, '(none)') = $key)
  AND ($purpose IS NULL OR coalesce(purpose, '(none)') = $purpose)
  AND ($task IS NULL OR coalesce(task_id, '(none)') = $task)
  AND ($ticket_source IS NULL OR coalesce(ticket_source, '(none)') = $ticket_source)
  AND ($price_status IS NULL OR coalesce(price_status, '(none)') = $price_status)
  AND ($usage_source IS NULL OR list_contains(string_split($usage_source, ','), coalesce(usage_source, '(none)')))
  AND ($result IS NULL OR result = $result)
  AND CASE $for
    WHEN 'ticket' THEN len(tickets) > 0
    WHEN 'no_ticket' THEN len(tickets) = 0
    WHEN 'overhead' THEN len(tickets) = 0 AND purpose IS NOT NULL
    WHEN 'nothing' THEN len(tickets) = 0 AND purpose IS NULL
    ELSE true
  END
ORDER BY started_at DESC, call_id
