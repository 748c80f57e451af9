-- The last successful deployment of a repository to a place before a time, as it names itself in one way.
SELECT sha
FROM deployments
WHERE repo = $repo AND lower(environment) = lower($environment) AND started_at < $before
    AND finished_at IS NOT NULL AND regexp_full_match(deployment_id, $named)
ORDER BY started_at DESC
LIMIT 1
