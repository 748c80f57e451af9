-- A call without a ticket on the branch of a pull request: the tickets of the one that was opened first of those that
-- had not ended when the call started. Without a repository, the branch must be one of a single repository.
UPDATE looked
SET rule = 'branch', tickets = found.tickets, source = 'branch'
FROM (
  WITH prs AS (
    SELECT *, min(lower(repo)) OVER (PARTITION BY branch) = max(lower(repo)) OVER (PARTITION BY branch) AS is_single
    FROM pr_evidence WHERE branch IS NOT NULL
  )
  SELECT call_id, prs.tickets
  FROM looked JOIN prs USING (branch)
  WHERE len(looked.tickets) = 0
    AND (lower(looked.repo) = lower(prs.repo) OR looked.repo IS NULL AND is_single)
    AND (ended_at IS NULL OR started_at < ended_at)
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY created_at, number) = 1
) AS found
WHERE looked.call_id = found.call_id AND len(found.tickets) > 0
