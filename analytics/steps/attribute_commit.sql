-- A call without a ticket and branch whose checkout was at a commit of a pull request that had not ended then: the pull
-- request's tickets. Not those that the commit names: it is the work before the call.
UPDATE looked
SET rule = 'commit', tickets = found.tickets, source = 'branch'
FROM (
  SELECT call_id, prs.tickets
  FROM looked JOIN commits ON commits.sha = looked.commit_sha JOIN pr_evidence AS prs USING (pr_id)
  WHERE len(looked.tickets) = 0 AND looked.branch IS NULL AND prs.branch IS NOT NULL
    AND (ended_at IS NULL OR looked.started_at < ended_at)
  QUALIFY row_number() OVER (
    PARTITION BY call_id ORDER BY lower(looked.repo) IS DISTINCT FROM lower(prs.repo), prs.created_at, prs.number
  ) = 1
) AS found
WHERE looked.call_id = found.call_id AND len(found.tickets) > 0
