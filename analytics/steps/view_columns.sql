-- The columns of each view in the current catalog, from the catalog: to DESCRIBE a view takes as long as to create it.
SELECT table_name, list(column_name ORDER BY column_index)
FROM duckdb_columns()
WHERE database_name = current_database() AND NOT internal
GROUP BY table_name
