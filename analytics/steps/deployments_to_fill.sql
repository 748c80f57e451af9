-- Successful deployments of a repository of which no forge tells what they carried, each with the commit that was
-- deployed before it to the same environment. Of the first one to an environment, nobody knows what was new.
SELECT deployment_id, sha, before, finished_at
FROM (
  SELECT
    deployment_id, sha, finished_at,
    lag(sha) OVER (PARTITION BY lower(environment) ORDER BY finished_at, deployment_id) AS before
  FROM deployments
  WHERE repo = $repo AND finished_at IS NOT NULL AND sha IS NOT NULL
)
WHERE before IS NOT NULL AND deployment_id NOT IN (SELECT deployment_id FROM deployment_prs)
