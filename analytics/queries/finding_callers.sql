-- Whose keys made some calls.
SELECT DISTINCT user_id FROM calls WHERE list_contains($call_ids, call_id) AND user_id IS NOT NULL ORDER BY user_id
