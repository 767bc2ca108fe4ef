"""German words that mean the same thing, in the form of `english_words`. Umlauts and ß are written as they are."""

ACTIONS = """
einschalten = anschalten, anmachen, aktivieren, aktivierung, anstellen, einschalten; ausschalten = abschalten,
ausmachen,
deaktivieren, deaktivierung, abstellen
installieren = installation, einrichten, einrichtung, aufsetzen; deinstallieren = deinstallation
zurücksetzen = resetten, neu setzen, zurücksetzung; löschen = entfernen, beseitigen, löschung, entfernung, loswerden
kündigen = kündigung; stornieren = stornierung; ändern = verändern, änderung, wechseln, anpassen, bearbeiten, abändern
aktualisieren = updaten, aktualisierung, upgraden; erstellen = anlegen, erzeugen, erstellung, machen, herstellen, bauen,
anfertigen, herstellung, zubereiten, zubereitung
schreiben = verfassen, formulieren; finden = suchen, ausfindig machen
reparieren = beheben, reparatur, lösen, instand setzen, behebung; kaufen = erwerben, kauf
reinigen = putzen, säubern, reinigung, saubermachen, sauber machen, waschen; kochen = garen; backen; braten; schneiden
einfrieren; auftauen; herunterladen = downloaden, runterladen; hochladen = uploaden
übersetzen = übersetzung, übertragen; zusammenfassen = zusammenfassung, kurzfassung
erklären = erklärung, erläutern, beschreiben, beschreibung, erläuterung, definieren, definition
berechnen = ausrechnen, errechnen, berechnung, ermitteln, bestimmen
kontaktieren = kontakt aufnehmen mit, erreichen, in verbindung setzen mit
zurückgeben = zurückschicken, zurücksenden, retournieren
verfolgen = nachverfolgen; verbessern = verbesserung, steigern, optimieren; prüfen = überprüfen, kontrollieren, checken,
überprüfung, nachprüfen
vergleichen = vergleich; lernen = erlernen; verbinden = verbindung, koppeln; trennen
anmelden = einloggen, login, anmeldung; abmelden = ausloggen, logout, abmeldung
registrieren = registrierung, konto anlegen, konto erstellen, konto eröffnen
umbenennen; neustarten = neu starten, neustart, rebooten; wiederherstellen = wiederherstellung, zurückholen
sichern = sicherung, backup; umrechnen = umwandeln, umrechnung, konvertieren, umwandlung
reservieren = buchen, reservierung, buchung; drucken = ausdrucken; sortieren; speichern = abspeichern; vermeiden =
verhindern, vermeidung, vorbeugen
schützen = schutz; teilen; bezahlen = zahlen, bezahlung, zahlung; beantragen = antrag stellen, beantragung
ersetzen = austauschen, auswechseln, tauschen; pflanzen = anpflanzen, einpflanzen; abnehmen = gewicht verlieren;
zunehmen
pflegen = pflege; öffnen = aufmachen; schließen = zumachen; entkalken; messen; verschlüsseln = verschlüsselung
entschlüsseln = entschlüsselung; blockieren; erhöhen = vergrößern; senken = verringern, reduzieren, verkleinern
einfügen; kopieren; bewerben; behandeln = behandlung; umtauschen; bildschirmfoto = screenshot, bildschirmaufnahme
sperren; entsperren
"""

CLASSES = """
beginnen = anfangen, starten, beginn, anfang, losgehen; enden = aufhören, ende; bekommen = erhalten, kriegen
verwenden = benutzen, nutzen, gebrauchen, einsetzen; funktionieren = gehen; zeigen = anzeigen
passieren = geschehen, ereignen, vorkommen; brauchen = benötigen, nötig, notwendig, erforderlich; helfen = hilfe
wählen = auswählen, aussuchen; leben = wohnen; sprechen = reden; erfinden = erfindung, erfinder
entdecken = entdeckung, entdecker; sterben = tod; gebären = geboren, geburt
heiraten; besitzen = gehören; bestehen = zusammensetzen; bedeuten = bedeutung, heißen
preis = kosten, kostet; größe = groß; höhe = hoch; gewicht = schwer, wiegen; alter = alt
geschwindigkeit = tempo; temperatur; anzahl = menge; autor = schriftsteller
bevölkerung = einwohner, einwohnerzahl, bevölkerungszahl; hauptstadt; passwort = kennwort, zugangscode
email = e-mail, mail, e-mail-adresse, mailadresse, emailadresse; handy = smartphone, telefon, mobiltelefon
computer = rechner, pc; laptop = notebook; bild = foto, fotografie; film = spielfilm; auto = wagen, pkw
fahrrad = rad; arzt = doktor; anwalt = rechtsanwalt; kind; vater = papa; mutter = mama; oma = großmutter
opa = großvater; arbeit = job, beruf; chef = vorgesetzter; kollege = mitarbeiter; firma = unternehmen, betrieb
kunde; kundenservice = kundendienst, kundensupport, support; wohnung = apartment; haus
urlaub = ferien; müll = abfall; sofa = couch; hose; benzin = sprit; bauch = magen
krankheit = erkrankung; medikament = arznei, arzneimittel, medizin; kühlschrank; gericht = speise; lehrer = lehrkraft
prüfung = examen, klausur; text = textabschnitt; nachricht = mitteilung
vorteil = pluspunkt; nachteil = minuspunkt; unterschied = unterscheiden; beispiel; idee = vorschlag, tipp,
ratschlag, rat, empfehlung, vorschlagen, empfehlen
problem = schwierigkeit; fehler = fehlermeldung; grund = ursache; wirkung = auswirkung, effekt, folge, einfluss
ziel = zweck; ergebnis = resultat; ordner = verzeichnis; einstellung; konto = benutzerkonto, account, nutzerkonto
abonnement = abo, mitgliedschaft; paket = sendung; lieferung = versand, zustellung; rechnung; app = anwendung
website = webseite, internetseite, homepage; wlan = wi-fi, wifi, drahtlosnetzwerk
dunkelmodus = dunkler modus, dark mode, nachtmodus; benachrichtigung; land = staat; straße; regel = vorschrift
usa = vereinigte staaten, vereinigten staaten, amerika; großbritannien = vereinigtes königreich
klein = winzig; schnell = rasch, zügig; langsam; einfach = leicht, simpel, unkompliziert
schwierig = kompliziert; wichtig = wesentlich, bedeutend; gut; best = ideal, optimal; schlecht = schädlich, ungesund
gesund; schön = hübsch; billig = günstig, preiswert; teuer = kostspielig; berühmt = bekannt; krank; glücklich = froh
wütend = zornig; müde = erschöpft; kostenlos = gratis, umsonst, kostenfrei; klug = intelligent, schlau
gefährlich = riskant; legal = erlaubt, zulässig; richtig = korrekt; häufig = oft; sofort = umgehend, unverzüglich
nur = lediglich, bloß, ausschließlich; alle = jede, sämtliche, ganze; viele = zahlreiche; mehr = zusätzlich, weitere
kurz = knapp; gleich = identisch; stichpunkt = aufzählungspunkt; gedicht; gemüse
frühstück; abendessen = abendbrot; funktion; deutschland = bundesrepublik; weltkrieg; kopfschmerzen = kopfweh
fernseher = tv; gehalt = lohn; termin = verabredung; möglich = machbar
satz; fleck; keller; samstag = sonnabend; bahnhof; flughafen; ankommen = ankunft; abfahren = abfahrt
"""
