"""PostgreSQL: engine, transactions, tables, repositories."""
