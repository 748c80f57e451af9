-- Branches of calls that have no ticket, as JSON.
SELECT coalesce(to_json(list(DISTINCT {repo: repo, branch: branch})), '[]')
FROM looked
WHERE in_span AND len(tickets) = 0 AND branch IS NOT NULL
