-- Run once by the PostgreSQL container of docker-compose.yml, when its volume is new: the logins that .env names.
-- `freeagentics-db init` then gives each the rights of its role.
\getenv app_password APP_PASSWORD
\getenv migrator_password MIGRATOR_PASSWORD
\getenv relay_password RELAY_PASSWORD
CREATE ROLE freeagentics_app_login LOGIN PASSWORD :'app_password';
CREATE ROLE freeagentics_migrator_login LOGIN PASSWORD :'migrator_password';
CREATE ROLE freeagentics_relay_login LOGIN PASSWORD :'relay_password';
