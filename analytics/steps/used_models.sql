-- Models that calls used, by provider.
SELECT DISTINCT provider, model FROM waste_calls WHERE provider IS NOT NULL AND model IS NOT NULL ORDER BY ALL
