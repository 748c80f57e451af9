-- All attempts of a request. One row per call.
SELECT attempt, call_id, started_at, upstream, coalesce(response_model, request_model) AS model, status, result, list_cost_usd
FROM calls
WHERE request_id = $request
ORDER BY attempt
